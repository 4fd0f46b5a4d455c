// Real nodes of one team on this machine, as ordinary users: one that submits, a desk with a screen of its own whose
// owner comes and goes, and one that always helps. Folders of their own, real compilers, nothing simulated.
import { execFile, execFileSync, spawn } from 'node:child_process';
import { chmodSync, chownSync, copyFileSync, cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, readlinkSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { delimiter, join } from 'node:path';
import { freePort, UI } from '../e2e/node.mjs';

const PROGRAMS = ['potluck', 'potluck-node', 'potluck-runner'];
const TOOLS = ['Xvfb', 'xdotool', 'gcc', 'make', 'setpriv'];
const IS_ROOT = process.getuid() === 0;
/** First spare user, as in the Lab of the long proofs: nodes do not run jobs as root. */
const SPARE_UID = 54_321;
/** A node that has not said "ready" by then will not: its self-test runs at the lowest priority. */
const READY_WITHIN_MS = 90_000;
/** Joining, and a compiler that is packed, sent and proved: seconds, and some patience on a machine that is busy. */
const TOGETHER_WITHIN_MS = 480_000;
/** Cores of this machine: no PC lends more. */
export const CORES = cpus().length;

/** The desk's owner: away after five seconds without input, then everything is lent. The load of this machine, on which
 *  all nodes compile, is not the owner's: the desk has a /proc of its own in which nobody does anything. */
const DESK = `role = "donor"
[share]
enabled = true
preset = "custom"
away_after = "5s"
cores_away = "all"
cores_in_use = 0
load_gate = 80
keep_free_disk = "1MiB"
`;

const found = (program) => (process.env.PATH ?? '').split(delimiter).some((dir) => existsSync(join(dir, program)));

/** What is not there and has to be; empty: the proofs can run. */
export function missing() {
  const dir = process.env.POTLUCK_BIN ?? '';
  const lacks = PROGRAMS.filter((p) => !existsSync(join(dir, p))).map((p) => `${p} in ${dir}`);
  lacks.push(...TOOLS.filter((p) => !found(p)));
  // The name of the library call is in the program if and only if that part was built in.
  if (lacks.length === 0 && !readFileSync(join(dir, 'potluck-node')).includes('XScreenSaverQueryInfo')) {
    lacks.push('a node that looks at a screen (cargo build --features potluck-node/desktop)');
  }
  return lacks;
}

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

/** Asks again until it answers something true; the value. */
export async function until(what, withinMs, look, everyMs = 100) {
  const end = Date.now() + withinMs;
  let last;
  for (;;) {
    last = await look();
    if (last) return last;
    if (Date.now() > end) throw new Error(`${what}: not within ${withinMs / 1000} s`);
    await sleep(everyMs);
  }
}

/** Where the kernel has the old kind of CPU groups, each PC gets one: else the programs of one, or of whatever else runs
 *  here, would starve jobs on another, which have the lowest priority on the kernel that all share. */
const GROUPS = '/sys/fs/cgroup/cpu';
const SHARES = 4096;

function makeGroup(name) {
  const path = join(GROUPS, `potluck-ui-${name}-${process.pid}`);
  try {
    mkdirSync(path);
    writeFileSync(join(path, 'cpu.shares'), String(SHARES));
    return path;
  } catch {
    return null;
  }
}

/** A command line that ends with this process, whatever ends it; as another user if there is one. */
function as(uid, words, group = null) {
  const person = IS_ROOT && uid !== 0 ? ['--reuid', String(uid), '--regid', String(uid), '--clear-groups'] : [];
  const command = ['setpriv', '--pdeathsig', 'KILL', ...person, ...words];
  return group ? ['sh', ['-c', 'echo $$ >"$0" && exec "$@"', join(group, 'cgroup.procs'), ...command]] : [command[0], command.slice(1)];
}

/** Every process of this machine: id, parent, name, state. */
function processes() {
  const all = [];
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
      const [state, parent] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
      all.push({ pid: Number(pid), parent: Number(parent), name: stat.slice(stat.indexOf('(') + 1, stat.lastIndexOf(')')), state });
    } catch {
      // It ended in between.
    }
  }
  return all;
}

/** Whatever a folder's programs left running. */
function remains(base) {
  const of = (pid, link) => {
    try {
      return readlinkSync(`/proc/${pid}/${link}`);
    } catch {
      return '';
    }
  };
  return processes().filter(({ pid }) => of(pid, 'exe').startsWith(base) || of(pid, 'cwd').startsWith(base));
}

/** One node and its person. */
class RealNode {
  constructor(pool, name, uid, args, extra = {}) {
    this.pool = pool;
    this.name = name;
    this.uid = IS_ROOT ? uid : process.getuid();
    this.args = args;
    this.dir = join(pool.base, name);
    this.group = IS_ROOT ? makeGroup(name) : null;
    /** Commands that have not ended. */
    this.open = 0;
    this.env = {
      HOME: this.path('home'),
      PATH: '/usr/local/bin:/usr/bin:/bin',
      LANG: 'C.UTF-8',
      POTLUCK_UI_DIR: join(pool.base, 'ui'),
      // No bus: this machine's own logind must not decide here.
      DBUS_SYSTEM_BUS_ADDRESS: `unix:path=${this.path('no-bus')}`,
      // Nor a bus of this session: without an address libdbus would start one again and again.
      DBUS_SESSION_BUS_ADDRESS: `unix:path=${this.path('no-bus')}`,
      ...Object.fromEntries(['CONFIG', 'STATE', 'CACHE'].map((n) => [`XDG_${n}_HOME`, this.path(n.toLowerCase())])),
      XDG_RUNTIME_DIR: this.path('run'),
      ...extra,
    };
    for (const folder of ['', 'home', 'config', 'config/potluck', 'state', 'cache', 'run', 'work']) this.makeDir(folder);
  }

  path(below) {
    return join(this.dir, below);
  }

  makeDir(below) {
    mkdirSync(this.path(below), { recursive: true, mode: 0o700 });
    if (IS_ROOT) chownSync(this.path(below), this.uid, this.uid);
  }

  write(below, text) {
    writeFileSync(this.path(below), text);
    if (IS_ROOT) chownSync(this.path(below), this.uid, this.uid);
  }

  async ports() {
    [this.webPort, this.listenPort] = [await freePort(), await freePort()];
    this.origin = `http://127.0.0.1:${this.webPort}`;
    this.address = `127.0.0.1:${this.listenPort}`;
  }

  start() {
    const args = ['node', '--listen', this.address, '--no-discovery', '--name', this.name, '--web', `127.0.0.1:${this.webPort}`, ...this.args];
    const [program, words] = as(this.uid, [join(this.pool.base, 'bin/potluck-node'), ...args], this.group);
    return new Promise((resolve, reject) => {
      const child = spawn(program, words, { env: this.env, cwd: this.dir, stdio: ['ignore', 'pipe', 'pipe'] });
      this.child = child;
      let out = '';
      const late = setTimeout(() => reject(new Error(`${this.name} was not ready: ${out}`)), READY_WITHIN_MS);
      const read = (chunk) => {
        out = (out + chunk).slice(-4000);
        if (out.includes('ready')) {
          clearTimeout(late);
          resolve();
        }
      };
      child.stdout.on('data', read);
      child.stderr.on('data', read);
      child.on('exit', (code, signal) => {
        clearTimeout(late);
        reject(new Error(`${this.name} ended with ${code ?? signal}: ${out}`));
      });
    });
  }

  /** Ends it: as a power cut would, or as a shutdown does. */
  stop(signal = 'SIGKILL') {
    return new Promise((resolve) => {
      if (!this.child || this.child.exitCode !== null || this.child.signalCode !== null) return resolve();
      this.child.removeAllListeners('exit');
      const late = setTimeout(() => this.child.kill('SIGKILL'), 10_000);
      this.child.on('exit', () => {
        clearTimeout(late);
        resolve();
      });
      this.child.kill(signal);
    });
  }

  /** A command of its person: standard output; whatever goes wrong is thrown with what was said. */
  run(words, { cwd = this.path('work'), timeout = 600_000, allowed = [0] } = {}) {
    const [program, args] = as(this.uid, words, this.group);
    this.open += 1;
    return new Promise((resolve, reject) => {
      execFile(program, args, { env: this.env, cwd, timeout, maxBuffer: 64 << 20 }, (error, stdout, stderr) => {
        this.open -= 1;
        const code = error ? error.code : 0;
        if (allowed.includes(code)) resolve(stdout);
        else reject(new Error(`${this.name}: ${words.join(' ')} ended with ${code ?? error?.signal}: ${stderr.slice(-3000)}${stdout.slice(-1000)}`));
      });
    });
  }

  potluck(args, options) {
    return this.run([join(this.pool.base, 'bin/potluck'), ...args], options);
  }

  async json(args) {
    return JSON.parse(await this.potluck([...args, '--json']));
  }

  status() {
    return this.json(['status']);
  }

  /** An address with a one-time token, as `potluck ui` makes it. */
  async url() {
    const out = await this.potluck(['ui', '--print']);
    const url = /http:\/\/\S+#token=\S+/.exec(out)?.[0];
    if (!url) throw new Error(`${this.name}: potluck ui --print gave no address: ${out}`);
    return url;
  }

  /** This node's process and all that descend from it. */
  family() {
    const all = processes();
    const family = new Set([this.child.pid]);
    for (let known = 0; known < family.size; ) {
      known = family.size;
      for (const one of all) if (family.has(one.parent)) family.add(one.pid);
    }
    return all.filter((one) => family.has(one.pid));
  }

  /** Programs of others that run or are stopped here: whatever of the family is no program of Potluck's own. */
  foreign() {
    return this.family().filter((one) => !one.name.startsWith('potluck') && one.state !== 'Z');
  }
}

/** A screen that nobody sees, with keyboard and mouse. */
function startScreen() {
  // Without -noreset the idle time begins anew whenever the last program leaves.
  const [program, words] = as(process.getuid(), ['Xvfb', '-displayfd', '1', '-screen', '0', '1280x800x24', '-nolisten', 'tcp', '-noreset', '-ac']);
  const child = spawn(program, words, { stdio: ['ignore', 'pipe', 'ignore'] });
  return new Promise((resolve, reject) => {
    child.on('exit', (code) => reject(new Error(`Xvfb ended with ${code}`)));
    child.stdout.on('data', (chunk) => resolve({ child, name: `:${String(chunk).trim()}` }));
  });
}

/** Starts everything; the pool. `end` takes it down and complains about whatever is left. */
export async function startPool() {
  // Never below /tmp: what lies there is private to each job, so that it is not sent.
  const base = mkdtempSync('/var/tmp/potluck-ui-');
  chmodSync(base, 0o755);
  const pool = { base, cores: CORES, nodes: [] };
  mkdirSync(join(base, 'bin'));
  for (const name of PROGRAMS) {
    copyFileSync(join(process.env.POTLUCK_BIN, name), join(base, 'bin', name));
    chmodSync(join(base, 'bin', name), 0o755);
  }
  cpSync(join(UI, 'dist'), join(base, 'ui'), { recursive: true });
  execFileSync('chmod', ['-R', 'a+rX', join(base, 'ui')]);
  pool.end = async () => {
    // A proof that failed leaves its build behind.
    if (pool.nodes.some((node) => node.open > 0)) {
      const nodes = new Set(pool.nodes.flatMap((node) => (node.child ? node.family() : [])).map((one) => one.pid));
      for (const { pid } of remains(base).filter((one) => !nodes.has(one.pid))) process.kill(pid, 'SIGKILL');
    }
    await Promise.all(pool.nodes.map((node) => node.stop('SIGTERM')));
    pool.screen?.child.kill('SIGKILL');
    let left = remains(base);
    for (let i = 0; i < 100 && left.length > 0; i++) {
      await sleep(100);
      left = remains(base);
    }
    for (const { pid } of left) process.kill(pid, 'SIGKILL');
    if (process.env.POTLUCK_KEEP) console.log(`kept ${base}`);
    rest();
    process.off('exit', interrupted);
    if (left.length > 0) throw new Error(`these were left running: ${left.map((p) => `${p.name} (${p.pid})`).join(', ')}`);
  };
  // Whoever interrupts a start finds nothing of it either: what runs ends with this process, and here goes the rest.
  const rest = () => {
    if (process.env.POTLUCK_KEEP) return;
    rmSync(base, { recursive: true, force: true, maxRetries: 5 });
    for (const { group } of pool.nodes) if (group && existsSync(group)) rmdirSync(group);
  };
  const interrupted = () => {
    for (const node of pool.nodes) node.child?.kill('SIGKILL');
    pool.screen?.child.kill('SIGKILL');
    try {
      rest();
    } catch {
      // Its processes are still ending: an empty group of the kernel's costs nothing.
    }
  };
  process.once('exit', interrupted);
  let late;
  try {
    const tooLate = new Promise((_, reject) => (late = setTimeout(() => reject(new Error(`no team within ${TOGETHER_WITHIN_MS / 60_000} minutes`)), TOGETHER_WITHIN_MS)));
    await Promise.race([together(pool), tooLate]);
  } catch (error) {
    const how = await Promise.race([pool.submitter?.status().catch(String), sleep(5000)]);
    error.message += `; the submitter: ${JSON.stringify(how?.peers ?? how)?.slice(0, 2000)}`;
    await pool.end();
    throw error;
  } finally {
    clearTimeout(late);
  }
  return pool;
}

async function together(pool) {
  pool.screen = await startScreen();
  pool.screen.child.removeAllListeners('exit');
  /** The owner presses a key. The moment before, milliseconds since 1970. */
  pool.pressKey = async () => {
    const before = Date.now();
    await new Promise((resolve, reject) => {
      execFile('xdotool', ['key', 'shift'], { env: { ...process.env, DISPLAY: pool.screen.name } }, (error) => (error ? reject(error) : resolve()));
    });
    return before;
  };
  // One core of its own, which compiles as well: its speed is known then, and time saved is counted against that core.
  pool.submitter = new RealNode(pool, 'submitter', SPARE_UID, ['--local-compiles', '1', '--local-slots', '1']);
  pool.submitter.write('config/potluck/config.toml', 'role = "developer"\n');
  pool.desk = new RealNode(pool, 'desk', SPARE_UID + 10, [], { DISPLAY: pool.screen.name });
  pool.desk.write('config/potluck/config.toml', DESK);
  pool.desk.makeDir('proc/pressure');
  pool.desk.makeDir('power');
  pool.desk.write('proc/stat', 'cpu  0 0 0 1000 0 0 0 0 0 0\n');
  pool.desk.write('proc/meminfo', 'MemTotal: 16000000 kB\nMemAvailable: 12000000 kB\n');
  Object.assign(pool.desk.env, { POTLUCK_PROC: pool.desk.path('proc'), POTLUCK_POWER_SUPPLY: pool.desk.path('power') });
  pool.helper = new RealNode(pool, 'helper', SPARE_UID + 11, ['--serve', '2']);
  const workers = [pool.desk, pool.helper];
  pool.nodes.push(pool.submitter, ...workers);
  for (const node of pool.nodes) await node.ports();
  await Promise.all(pool.nodes.map((node) => node.start()));
  await pool.submitter.potluck(['team', 'create', 'Real lab']);
  const said = await pool.submitter.potluck(['team', 'invite', '--no-approve', '--uses', '2']);
  const link = said.trim().split('\n').at(-1).trim();
  for (const worker of workers) {
    await worker.potluck(['peers', 'add', pool.submitter.address]);
    await worker.potluck(['team', 'join', link]);
    await pool.submitter.potluck(['peers', 'add', worker.address]);
  }
  /** Waits until so many workers give slots to the submitter. */
  pool.serving = (count, withinMs = 60_000) =>
    until(`${count} workers that serve`, withinMs, async () => {
      const { peers } = await pool.submitter.status();
      return peers.filter((p) => p.connected && p.slots > 0).length >= count;
    });
  await pool.serving(2);
  await pool.submitter.potluck(['toolchain', 'add', 'gcc']);
  await pool.submitter.potluck(['toolchain', 'sync']);
  // A PC that is in use for a moment proves its compiler later.
  await until('gcc on both workers', TOGETHER_WITHIN_MS, async () => (await pool.submitter.status()).peers.every((p) => p.toolchains.length > 0));
}
