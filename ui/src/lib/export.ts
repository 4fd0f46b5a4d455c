// A build's jobs as files for other programs. Pure: the same columns that the page draws, each job once, in the order of start.

import type { JobColumns, Report } from './api';

const KINDS = ['remote', 'here', 'only', 'failed'] as const;

/** One object per job: what CSV and JSON carry. */
export function rows(jobs: JobColumns): Record<string, string | number>[] {
  return jobs.start_ms.map((start, i) => ({
    file: jobs.file[i] ?? '',
    kind: KINDS[jobs.kind[i] ?? 0] ?? 'remote',
    machine: jobs.machines[jobs.machine[i] ?? 0] ?? '',
    row: jobs.lane[i] ?? 0,
    reason: jobs.reasons[jobs.reason[i] ?? 0] ?? '',
    start_ms: start,
    took_ms: jobs.took_ms[i] ?? 0,
    wait_ms: jobs.wait_ms[i] ?? 0,
    understand_ms: jobs.understand_ms[i] ?? 0,
    travel_ms: jobs.travel_ms[i] ?? 0,
    compile_ms: jobs.compile_ms[i] ?? 0,
    finish_ms: jobs.finish_ms[i] ?? 0,
    repeats: jobs.repeats[i] ?? 0,
  }));
}

export function toJson(report: Report, jobs: JobColumns): string {
  return JSON.stringify({ schema: 1, report, jobs: rows(jobs) }, null, 1);
}

/** RFC 4180; a text that a spreadsheet would take for a formula gets an apostrophe. */
export function toCsv(jobs: JobColumns): string {
  const all = rows(jobs);
  const names = Object.keys(all[0] ?? { file: '' });
  const cell = (value: string | number) => {
    if (typeof value === 'number') return String(value);
    const safe = /^[=+\-@\t]/.test(value) ? "'" + value : value;
    return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  return [names.join(','), ...all.map((row) => names.map((n) => cell(row[n] ?? '')).join(','))].join('\r\n') + '\r\n';
}

/** Chrome's trace format, for Perfetto and chrome://tracing: a process is a machine, a thread is a row of it. */
export function toTrace(jobs: JobColumns): string {
  const names = jobs.machines.map((name, pid) => ({ ph: 'M', name: 'process_name', pid, tid: 0, args: { name } }));
  const bars = rows(jobs).map((row, i) => ({
    ph: 'X',
    name: row.file,
    cat: row.kind,
    ts: Number(row.start_ms) * 1000,
    dur: Number(row.took_ms) * 1000,
    pid: jobs.machine[i] ?? 0,
    tid: row.row,
    args: {
      reason: row.reason,
      wait_ms: row.wait_ms,
      understand_ms: row.understand_ms,
      travel_ms: row.travel_ms,
      compile_ms: row.compile_ms,
      finish_ms: row.finish_ms,
      repeats: row.repeats,
    },
  }));
  return JSON.stringify({ displayTimeUnit: 'ms', traceEvents: [...names, ...bars] });
}
