// The app's IPC inside of a browser: the two commands of the tray app, forwarded to the node's WebSocket. It runs in the page.
export function bridge() {
  const callbacks = new Map();
  let next = 1;
  const listeners = [];
  let session = sessionStorage.getItem('potluck.session');
  let entering = null;
  const token = /^#token=([\w.~-]+)$/.exec(location.hash)?.[1];
  if (token) {
    history.replaceState(null, '', location.pathname);
    entering = fetch('/session', { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ token }) })
      .then((answer) => answer.json())
      .then((body) => {
        session = body.session;
        sessionStorage.setItem('potluck.session', session);
      });
  }
  let socket = null;
  const waiting = new Map();
  async function ready() {
    await entering;
    if (socket?.readyState === WebSocket.OPEN) return socket;
    if (socket?.readyState === WebSocket.CONNECTING) return new Promise((resolve, reject) => {
      socket.addEventListener('open', () => resolve(socket));
      socket.addEventListener('close', () => reject('gone'));
    });
    return new Promise((resolve, reject) => {
      const made = new WebSocket(`ws://${location.host}/ws`);
      socket = made;
      made.onopen = () => {
        made.send(JSON.stringify({ token: session }));
        resolve(made);
      };
      made.onmessage = (event) => {
        const frame = JSON.parse(event.data);
        const one = waiting.get(frame.id);
        if (!one) return;
        if (frame.last) waiting.delete(frame.id);
        one.value(JSON.stringify(frame.value), frame.last);
      };
      made.onclose = () => {
        for (const one of waiting.values()) one.lost();
        waiting.clear();
        reject('gone');
      };
    });
  }
  async function ask(json, value, lost) {
    const to = await ready();
    const id = next++;
    waiting.set(id, { value, lost });
    to.send(`{"id":${id},"call":${json}}`);
  }
  window.__TAURI_INTERNALS__ = {
    metadata: { currentWindow: { label: 'main' }, currentWebview: { label: 'main' } },
    transformCallback(run) {
      const id = next++;
      callbacks.set(id, run);
      return id;
    },
    unregisterCallback(id) {
      callbacks.delete(id);
    },
    invoke(command, args) {
      if (command === 'call') {
        return new Promise((resolve, reject) => {
          ask(args.json, (text, last) => last && resolve(text), () => reject('gone')).catch(reject);
        });
      }
      if (command === 'watch') {
        return new Promise((resolve, reject) => {
          let index = 0;
          const run = (raw) => callbacks.get(args.channel.id)?.(raw);
          const over = () => run({ end: true, index });
          // As the app does it: what is larger than 8 KiB is fetched, and comes after what was sent later.
          const send = (raw) => (raw.message.length < 8192 ? run(raw) : setTimeout(() => run(raw), 30));
          ask(
            args.json,
            (text, last) => {
              send({ message: text, index: index++ });
              if (last) {
                over();
                resolve(null);
              }
            },
            // As the app does it: what ends, ends without an error.
            () => {
              over();
              resolve(null);
            },
          ).catch(reject);
        });
      }
      if (command === 'plugin:event|listen') {
        listeners.push({ event: args.event, run: callbacks.get(args.handler) });
        return Promise.resolve(next++);
      }
      if (command === 'start_node') return Promise.resolve(null);
      return Promise.reject(`no command ${command}`);
    },
  };
  window.__emit = (event, payload) => {
    for (const one of listeners) if (one.event === event) one.run({ event, id: 0, payload });
  };
}
