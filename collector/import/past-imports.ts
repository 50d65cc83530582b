/** `import --list` and `import --undo ID`. */
import { resolve } from 'node:path';
import { StoreError, UsageError } from '../../shared/errors.js';
import { createLog } from '../../shared/log.js';
import { sharedImportId } from '../../shared/rollup/rollup.js';
import { formatAddress, type SettingValues } from '../../shared/settings/settings.js';
import { openStore } from '../../shared/store/open.js';
import { storeSettingsFrom } from '../../shared/settings/store-settings.js';
import type { Store } from '../../shared/store/store.js';
import { importContentType } from './protocol.js';
import { reachableHost } from './remote.js';
import type { importSettings } from './settings.js';
import { counted } from './summary.js';

/** What to do with past imports. */
export type PastImportsAction = { readonly kind: 'list' } | { readonly kind: 'undo'; readonly importId: number };

/** The id of an import as it is displayed: its start time. */
function importName(importId: number): string {
  return new Date(importId).toISOString();
}

/** Parses the output of `importName`. Throws a `UsageError` for anything else. */
export function parseImportName(name: string): number {
  const importId = /^\d{4}-\d\d-\d\dT[\d:.]+Z$/.test(name) ? Date.parse(name) : Number.NaN;
  if (Number.isNaN(importId) || importId === sharedImportId)
    throw new UsageError(
      `--undo is ${JSON.stringify(name)}: it must be an id that \`import --list\` shows, such as 2026-11-29T10:42:07.123Z.`,
    );
  return importId;
}

/** Performs the action on a store. Resolves to the text to print. Throws the store's `StoreError`. */
export async function managePastImports(
  store: Pick<Store, 'listImports' | 'takeBack' | 'description'>,
  action: PastImportsAction,
): Promise<string> {
  if (action.kind === 'undo') {
    const requests = await store.takeBack(action.importId);
    if (requests === 0)
      throw new StoreError(
        'stop',
        `The ${store.description} has no import ${importName(action.importId)}. \`import --list\` lists all imports.`,
      );
    return `Removed ${counted(requests, 'request', 'requests')} of the import ${importName(action.importId)}.\n`;
  }
  const imports = await store.listImports();
  if (imports.length === 0) return `The ${store.description} has no imports.\n`;
  const timeOf = (timeMs: number): string => new Date(timeMs).toISOString().slice(0, 16).replace('T', ' ');
  return imports
    .map(
      ({ importId, requests, firstHourMs, lastHourMs }) =>
        `${importName(importId)}  ${counted(requests, 'request', 'requests')} between ${timeOf(firstHourMs)} and ${timeOf(lastHourMs + 3_600_000)} UTC\n`,
    )
    .join('');
}

/** Performs the action on the configured store, or through the collector that has the file open. */
export async function pastImports(
  values: SettingValues<typeof importSettings>,
  action: PastImportsAction,
): Promise<string> {
  const settings = storeSettingsFrom(values);
  let store: Store;
  try {
    store = await openStore(settings, { log: createLog('import') });
  } catch (error) {
    if (
      !(error instanceof StoreError) ||
      !error.inUse ||
      settings.kind !== 'duckdb' ||
      values.COLLECTOR_HTTP === undefined
    )
      throw error;
    const address = formatAddress({ ...values.COLLECTOR_HTTP, host: reachableHost(values.COLLECTOR_HTTP) });
    const query = new URLSearchParams({
      store: resolve(settings.path),
      ...(action.kind === 'list' ? { list: 'true' } : { undo: String(action.importId) }),
    });
    const answer = await fetch(`http://${address}/import?${query.toString()}`, {
      method: 'POST',
      headers: { 'content-type': importContentType },
    }).catch((cause: unknown) => {
      throw new StoreError(
        'stop',
        `${error.message} That program's collector was not found at ${address}: set COLLECTOR_HTTP to its address.`,
        { cause },
      );
    });
    const { error: problem, text = '' } = (await answer.json()) as { error?: string; text?: string };
    if (problem !== undefined) throw new StoreError('stop', problem);
    return text;
  }
  try {
    return await managePastImports(store, action);
  } finally {
    await store.close();
  }
}
