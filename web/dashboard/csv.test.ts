import test from 'ava';
import { csv } from './csv.js';

test('rows are written with a header, CRLF, and quotes where they are needed', (t) => {
  t.is(csv(['a', 'b.c', 'd'], [{ a: 'x,"y"\n', b: { c: 1.5 }, d: { 200: 3, 404: 1 } }, { a: null, b: { c: null }, d: {} }]), 'a,b.c,d\r\n"x,""y""\n",1.5,200:3 404:1\r\n,,\r\n');
});

test('text from strangers is never a formula, and negative numbers stay numbers', (t) => {
  t.is(csv(['a'], [{ a: '=cmd|calc' }, { a: '@x' }, { a: '+1' }, { a: -1 }]), "a\r\n'=cmd|calc\r\n'@x\r\n'+1\r\n-1\r\n");
});
