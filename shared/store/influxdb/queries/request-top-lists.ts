import { topListsOfRequests } from '../../../top-list/top-lists-of-requests.js';
import type { Store } from '../../store.js';
import { readRequests } from './raw-requests.js';
import type { ReadCells } from './read-cells.js';

/** Maximum number of raw requests that are listed, the newest of the range: a page waits for its lists. */
const listedMax = 5000;

/** See `Store.topListsOfRequests`. Counts the reassembled requests, as `rollUpRequests` does. */
export async function listNewest(
  read: ReadCells,
  bucket: string,
  { kinds, valuesMax, ...query }: Parameters<Store['topListsOfRequests']>[0],
  requestsMax = listedMax,
): ReturnType<Store['topListsOfRequests']> {
  const requests = await readRequests(read, bucket, { ...query, limit: requestsMax + 1 });
  return {
    bySource: topListsOfRequests(requests.slice(0, requestsMax), { kinds, valuesMax }),
    ofNewest: requests.length > requestsMax ? requestsMax : undefined,
  };
}
