import test from 'ava';
import { isLoopbackName } from './loopback-name.js';

test('accepts localhost, names below it, and addresses', (t) => {
  for (const host of [
    'localhost',
    'localhost:3000',
    'LOCALHOST.:80',
    'stats.localhost:3000',
    '127.0.0.1',
    '127.9.9.9:3000',
    '[::1]',
    '[::1]:3000',
    '192.0.2.1:8080',
    '',
  ]) {
    t.true(isLoopbackName(host), host);
  }
});

test('refuses all other names, which another site could use', (t) => {
  for (const host of [
    'evil.example',
    'evil.example:3000',
    'localhost.evil.example',
    'notlocalhost',
    '127.0.0.1.evil.example',
    '[::1].evil.example',
    'a:b:c',
    'myhost',
  ]) {
    t.false(isLoopbackName(host), host);
  }
});
