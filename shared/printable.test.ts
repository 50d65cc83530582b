import test from 'ava';
import { printable, printableLine } from './printable.js';

test('escapes control characters, and preserves words, line breaks and tabs', (t) => {
  t.is(printable('\u001b[31mred\u0007\u009b2J\r\u202e'), '\\u001b[31mred\\u0007\\u009b2J\\u000d\\u202e');
  t.is(printable('Grüße,\n\t日本 🦆'), 'Grüße,\n\t日本 🦆');
  t.is(printable('half a pair: \ud800'), 'half a pair: \ufffd');
});

test('escapes line breaks and tabs where the text must stay on one line', (t) => {
  t.is(printableLine('Grüße,\n\t日本\r\u001b[2J\u2028'), 'Grüße,\\u000a\\u0009日本\\u000d\\u001b[2J\\u2028');
});
