import { topListsOfRequests } from '../../../top-list/top-lists-of-requests.js';
import type { Store } from '../../store.js';
import { readRequests } from './raw-requests.js';
import type { ReadCells } from './read-cells.js';

/** See `Store.topListsOfRequests`. */
export async function listNewest(
  read: ReadCells,
  bucket: string,
  { requestsMax, kinds, valuesMax, ...query }: Parameters<Store['topListsOfRequests']>[0],
): ReturnType<Store['topListsOfRequests']> {
  const requests = await readRequests(read, bucket, { ...query, limit: requestsMax + 1 });
  return {
    bySource: topListsOfRequests(requests.slice(0, requestsMax), { kinds, valuesMax }),
    ofNewest: requests.length > requestsMax ? requestsMax : undefined,
  };
}
