// How the page is built: external files only, nothing inline, so that the strictest content policy can hold.
import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vitest/config';

export default defineConfig({
  base: './',
  plugins: [svelte()],
  build: { target: 'es2022', assetsInlineLimit: 0, modulePreload: { polyfill: false }, chunkSizeWarningLimit: 400 },
  test: { include: ['src/**/*.test.ts'], environment: 'node' },
});
