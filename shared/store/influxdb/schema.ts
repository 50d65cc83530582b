/**
 * Schema version of a bucket: the measurement `store_schema`, without tags, with the integer field `version`. The web
 * app writes one point per day, so that the bucket's retention never removes the newest. A bucket without one has
 * version 1, or is empty.
 *
 * Version 2 has rollup rows by source and by host, with a cell per method and status; version 1 had a row per host,
 * method and status, which is still read. A web app of version 1 would ignore rows of version 2, so it must refuse
 * the bucket.
 *
 * The web app and imports check it before they read, write or delete. A collector has a write-only token and cannot:
 * upgrade it first or last.
 */
import { flux } from '@influxdata/influxdb-client';
import { StoreError } from '../../errors.js';
import { fluxText } from './flux-text.js';
import type { ReadCells } from './queries/read-cells.js';

/** Schema version of this program. */
const schemaVersion = 2;

const dayMs = 86_400_000;

/** The line with the schema version. */
export function schemaLine(nowMs: number): string {
  return `store_schema version=${schemaVersion}i ${Math.floor(nowMs / dayMs) * dayMs}000000`;
}

/** Throws a `StoreError` ('stop') when a newer program has written to the bucket. */
export async function refuseNewerSchema(
  read: ReadCells,
  { url, bucket }: { url: string; bucket: string },
): Promise<void> {
  let version = 1;
  const query = flux`from(bucket: ${fluxText(bucket)})
  |> range(start: ${new Date(0)})
  |> filter(fn: (r) => r._measurement == "store_schema" and r._field == "version")
  |> group()
  |> max()`;
  await read(query, ['_value'], ([value]) => {
    version = Number(value);
  });
  if (version <= schemaVersion) return;
  throw new StoreError(
    'stop',
    `Cannot use the bucket ${JSON.stringify(bucket)} at ${url}: a newer program writes it, in version ${version}, and this one knows version ${schemaVersion}. Upgrade this program, or set INFLUXDB_BUCKET to another bucket.`,
  );
}
