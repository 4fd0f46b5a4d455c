// A simulated node in folders of its own, as a test needs it: started, killed, started again at the same address.
import { spawn, execFile } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const UI = join(dirname(fileURLToPath(import.meta.url)), '../..');

/** The program that POTLUCK_BIN's folder has. */
export function program() {
  const dir = process.env.POTLUCK_BIN;
  if (!dir) throw new Error('POTLUCK_BIN must name the folder that potluck-node lies in');
  const path = join(dir, 'potluck-node');
  if (!existsSync(path)) throw new Error(`there is no ${path}`);
  return path;
}

export function freePort() {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.on('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

export async function startNode(seed = 7) {
  const home = mkdtempSync(join(tmpdir(), 'potluck-ui-'));
  const env = { ...process.env, HOME: home, POTLUCK_UI_DIR: join(UI, 'dist') };
  for (const [name, folder] of [['CONFIG_HOME', 'config'], ['STATE_HOME', 'state'], ['CACHE_HOME', 'cache'], ['DATA_HOME', 'data'], ['RUNTIME_DIR', 'run']]) {
    env['XDG_' + name] = join(home, folder);
    mkdirSync(env['XDG_' + name], { mode: 0o700 });
  }
  for (const name of ['POTLUCK_SOCKET', 'POTLUCK_CONFIG', 'DISPLAY', 'WAYLAND_DISPLAY', 'DBUS_SESSION_BUS_ADDRESS']) delete env[name];
  const port = await freePort();
  const node = { home, port, origin: `http://127.0.0.1:${port}`, child: null };

  node.start = () =>
    new Promise((resolve, reject) => {
      const child = spawn(program(), ['node', '--demo', String(seed), '--web', `127.0.0.1:${port}`], { env, stdio: ['ignore', 'pipe', 'pipe'] });
      node.child = child;
      let out = '';
      const late = setTimeout(() => reject(new Error('the node was not ready in 20 s: ' + out)), 20_000);
      const read = (chunk) => {
        out += chunk;
        if (out.includes('ready')) {
          clearTimeout(late);
          resolve();
        }
      };
      child.stdout.on('data', read);
      child.stderr.on('data', read);
      child.on('exit', (code) => {
        clearTimeout(late);
        reject(new Error(`the node ended with ${code}: ${out}`));
      });
    });
  /** Ends it as a power cut would. */
  node.kill = () =>
    new Promise((resolve) => {
      if (!node.child || node.child.exitCode !== null || node.child.signalCode !== null) return resolve();
      node.child.removeAllListeners('exit');
      node.child.on('exit', resolve);
      node.child.kill('SIGKILL');
    });
  /** An address with a one-time token, as `potluck ui` makes it. */
  node.url = () =>
    new Promise((resolve, reject) => {
      execFile(program(), ['ui', '--print'], { env, timeout: 15_000 }, (error, stdout, stderr) => {
        const url = /http:\/\/\S+#token=\S+/.exec(stdout)?.[0];
        if (url) resolve(url);
        else reject(new Error(`potluck ui --print gave no address: ${stdout}${stderr}${error ?? ''}`));
      });
    });
  /** A command of the same user: its standard output. */
  node.potluck = (...args) =>
    new Promise((resolve, reject) => {
      execFile(program(), args, { env, timeout: 60_000, maxBuffer: 64 << 20 }, (error, stdout, stderr) => {
        if (error) reject(new Error(`potluck ${args.join(' ')}: ${stderr}${error.message}`));
        else resolve(stdout);
      });
    });
  node.end = async () => {
    await node.kill();
    rmSync(home, { recursive: true, force: true });
  };
  await node.start();
  return node;
}
