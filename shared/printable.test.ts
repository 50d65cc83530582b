import test from 'ava';
import { printable } from './printable.js';

test('escapes control characters, and preserves words, line breaks and tabs', (t) => {
  t.is(printable('\u001b[31mred\u0007\u009b2J\r\u202e'), '\\u001b[31mred\\u0007\\u009b2J\\u000d\\u202e');
  t.is(printable('Grüße,\n\t日本 🦆'), 'Grüße,\n\t日本 🦆');
  t.is(printable('half a pair: \ud800'), 'half a pair: \ufffd');
});
