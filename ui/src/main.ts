// Where the page begins: one of two transports, then the app.

import { mount } from 'svelte';
import App from './App.svelte';
import { app } from './lib/app.svelte';
import { inApp, TauriClient } from './lib/tauri';
import { WsClient } from './lib/ws';
import './styles/tokens.css';
import './styles/base.css';

app.start(inApp() ? new TauriClient() : new WsClient());

const target = document.getElementById('app');
if (target) mount(App, { target });
