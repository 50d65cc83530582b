import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';

test('Every message in docs/errors.md is one that the program can print.', async (t) => {
  const code = (await Promise.all((await sourceFiles()).map((file) => readFile(file, 'utf8')))).join('\n');
  const page = await readFile('docs/errors.md', 'utf8');
  const messages = [...page.matchAll(/^\| `([^`]+)` \|/gm)].map(([, message]) => message!);
  t.true(messages.length >= 30, `${messages.length} messages`);
  const parts = messages.flatMap((message) =>
    message
      .replace(/ in the ledger$/, '')
      .split('…')
      .map((part) => part.trim())
      .filter(Boolean),
  );
  t.deepEqual(
    parts.filter((part) => !code.includes(part)),
    [],
  );
});

async function sourceFiles(): Promise<string[]> {
  const names = (
    await Promise.all(
      ['cli', 'collector', 'shared', 'web'].map(async (folder) =>
        (await readdir(folder, { recursive: true })).map((name) => join(folder, name)),
      ),
    )
  ).flat();
  return names.filter((name) => name.endsWith('.ts') && !name.endsWith('.test.ts'));
}
