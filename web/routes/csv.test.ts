import test from 'ava';
import { csv } from './csv.js';

test('quotes every field but empty ones, doubles quotes, and ends lines with CRLF', (t) => {
  t.is(
    csv(
      ['a', 'b.c', 'd'],
      [
        { a: 'x,"y"\n', b: { c: 1.5 }, d: { 200: 3, 404: 1 } },
        { a: null, b: { c: null }, d: {} },
      ],
    ),
    '"a","b.c","d"\r\n"x,""y""\n","1.5","200:3 404:1"\r\n,,""\r\n',
  );
});

test('writes numbers that are not finite, and values that are missing, as empty fields', (t) => {
  t.is(
    csv(['a', 'b', 'c', 'd.e', 'f'], [{ a: NaN, b: -Infinity, c: undefined, d: null }]),
    '"a","b","c","d.e","f"\r\n,,,,\r\n',
  );
});

test('keeps negative numbers, and disarms text that begins as a formula', (t) => {
  t.is(csv(['a'], [{ a: -1 }, { a: -0.5 }, { a: 1e-9 }]), '"a"\r\n"-1"\r\n"-0.5"\r\n"1e-9"\r\n');
  for (const text of ['=cmd|calc', '+1', '-1', '@x', '\t=x', '\r=x', '\n=x', '＝x', '＋x', '－x', '＠x']) {
    t.true(csv(['a'], [{ a: text }]).startsWith(`"a"\r\n"'${text[0]!}`), JSON.stringify(text));
  }
  for (const text of ['/a?b=c', 'a-b', 'x@example.com', 'a+b', ''])
    t.is(csv(['a'], [{ a: text }]), `"a"\r\n"${text}"\r\n`);
});

// As spreadsheets do it: a quote counts at the beginning of a cell alone, and what follows the closing one is taken as
// it is.
function cellsAt(separator: string, text: string): string[] {
  const cells: string[] = [];
  for (let at = 0; at <= text.length; at += 1) {
    let cell = '';
    if (text[at] === '"') {
      for (at += 1; at < text.length && (text[at] !== '"' || text[at + 1] === '"'); at += 1) {
        if (text[at] === '"') at += 1;
        cell += text[at]!;
      }
      at += 1;
    }
    for (; at < text.length && text[at] !== separator && text[at] !== '\r' && text[at] !== '\n'; at += 1)
      cell += text[at]!;
    cells.push(cell);
  }
  return cells;
}

for (const [name, separator] of [
  ['a comma', ','],
  ['a semicolon', ';'],
  ['a tab', '\t'],
] as const) {
  test(`leaves no formula to a spreadsheet that splits lines at ${name}`, (t) => {
    const hostile = [
      '=1',
      'x;=1',
      'x\t=1',
      'x";=1',
      'x;"=1',
      'x\r\n=1',
      'x;＝1',
      '";"=1',
      'x;@SUM(1)',
      'x\t+1',
      'x;-1',
      ';=1;=2',
      "x;'=1",
    ];
    const text = csv(
      ['a', 'b', 'c'],
      hostile.flatMap((value) => [
        { a: 1, b: value, c: value },
        { a: value, b: value, c: -1 },
      ]),
    );
    for (const cell of cellsAt(separator, text)) {
      if (cell !== '-1') t.notRegex(cell, /^"?[=+\-@\t\r＝＋－＠]/, JSON.stringify(cell));
    }
  });
}
