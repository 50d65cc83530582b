import { readFile } from 'node:fs/promises';
import test from 'ava';
import { collectorSettings } from '../collector/config.js';
import { logSettings } from '../shared/log.js';
import type { SettingTable } from '../shared/settings/settings.js';
import { storeSettings } from '../shared/settings/store-settings.js';
import { webSettings } from '../web/config.js';

const settings: SettingTable = { ...collectorSettings, ...webSettings, ...storeSettings, ...logSettings };
const defaults = Object.fromEntries(Object.entries(settings).map(([name, setting]) => [name, setting.default ?? '']));

test('The commented sample names every setting once, with its default.', async (t) => {
  const sample = await readFile('config/caddy-log-sink.env.example', 'utf8');
  const documented = [...sample.matchAll(/^# ([A-Z]+(?:_[A-Z]+)*)=(.*)$/gm)].map(
    ([, name, value]) => [name, value] as const,
  );
  t.deepEqual(Object.fromEntries(documented), defaults);
  t.is(documented.length, Object.keys(defaults).length);
});

test('docs/settings.md names every setting once, with its default.', async (t) => {
  const page = await readFile('docs/settings.md', 'utf8');
  const documented = [...page.matchAll(/^\| `([A-Z]+(?:_[A-Z]+)*)` \| (?:`([^`]*)`)? *\|/gm)].map(
    ([, name, value]) => [name, value ?? ''] as const,
  );
  const abbreviated = { COLLECTOR_ALLOW: 'loopback and private ranges', COLLECTOR_ID: 'the host name' };
  t.deepEqual(Object.fromEntries(documented), { ...defaults, ...abbreviated });
  t.is(documented.length, Object.keys(defaults).length);
});
