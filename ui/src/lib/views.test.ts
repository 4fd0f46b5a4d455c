// What views write, without a browser: as the server-side renderer of Svelte writes it.
import { beforeEach, describe, expect, it } from 'vitest';
import { render } from 'svelte/server';
import Banner from '../parts/Banner.svelte';
import Machines from '../views/Machines.svelte';
import type { Machine, Problem, Snapshot } from './api';
import { app } from './app.svelte';
import type { Client } from './client';
import { w } from './words';

const machine = (more: Partial<Machine>): Machine => ({
  id: 'b2', name: 'lab-04', state: 'sharing', reason: '', this_pc: false, used: 3, used_by_me: 2, offered: 8, cores: 8, speed: 1,
  toolchains_ready: 0, toolchains: 0, version: '', arch: '', address: '', found_by: 'network', rtt_us: 0, seen_ms: null, ...more,
});
const problem = (name: string, headline: string): Problem => ({
  code: 'R1', headline, detail: `Why: ${headline}`, fix: { label: 'Show machines', action: { is: 'view', name } }, attention: true, since_ms: 0,
});
const seen = (html: string) => html.replace(/<!--.*?-->/g, '').replace(/<[^>]*>/g, ' ').replace(/\s+/g, ' ');

describe('machines', () => {
  beforeEach(() => {
    app.snap = {
      this: { role: 'donor' },
      machines: [machine({ id: 'a1', name: 'here', this_pc: true, used: 7, used_by_me: 5, offered: 6 }), machine({})],
      problems: [problem('machines/b2', 'lab-04 sent wrong results.'), problem('machines/b', 'b is another.'), problem('help', 'No safe box.')],
      toolchains: [],
    } as unknown as Snapshot;
  });
  it('the page of one says what is wrong with it, and offers no way to itself', () => {
    const { body } = render(Machines, { props: { id: 'b2' } });
    expect(seen(body)).toContain('lab-04 sent wrong results.');
    expect(seen(body)).toContain('Why: lab-04 sent wrong results.');
    expect(body.match(/data-code/g)).toHaveLength(1);
    expect(body).not.toContain('<button');
    expect(render(Machines, { props: { id: 'a1' } }).body).not.toContain('data-code');
  });
  it('of this computer only what it lends is counted against what it offers', () => {
    const text = seen(render(Machines, { props: { id: '' } }).body);
    expect(text).toContain(w.machines.cores(2, 6));
    expect(text).toContain(w.machines.cores(3, 8));
  });
});

describe('a lost connection', () => {
  const banner = (client: Partial<Client>) => {
    app.client = client as Client;
    app.status = 'lost';
    return seen(render(Banner).body);
  };
  it('a page in a browser says how to open it again: the node may be at another port', () => {
    expect(banner({})).toContain(w.app.reopen);
    expect(banner({})).toContain(w.app.openCommand);
  });
  it('the app starts the node itself', () => {
    const text = banner({ startNode: async () => {} });
    expect(text).toContain(w.app.start);
    expect(text).not.toContain(w.app.reopen);
  });
});
