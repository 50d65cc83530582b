/**
 * Which requests are kept one by one where traffic is too much to keep all. The choice depends on the request alone:
 * the same request is kept or not by any collector, and by an import. Where an edge and an app share a request's id,
 * both rows are kept, or neither.
 */
import { hashOf } from '../sketch/hash.js';
import type { RequestEvent } from '../request-event.js';

/** Whether a request is kept, besides being counted. */
export type RequestSample = (request: RequestEvent) => boolean;

/**
 * Keeps about the part `ratio` of all requests, from 0 (none) to 1 (all). Throws a `RangeError` for any other number.
 */
export function createRequestSample(ratio: number): RequestSample {
  if (!(ratio >= 0 && ratio <= 1))
    throw new RangeError(`The part of requests that are kept is ${ratio}: it must be a number from 0 to 1.`);
  if (ratio === 1) return () => true;
  return (request) => hashOf(identityOf(request))[0] < ratio * 2 ** 32;
}

/** What tells a request from others: its id, or its time as its source wrote it, and, since clocks repeat, the rest. */
function identityOf({ requestId, timeMs, timeNs, method, status, durationMs, size, uri }: RequestEvent): string {
  return requestId === '' ? `${timeMs} ${timeNs} ${durationMs} ${size} ${status} ${method} ${uri}` : requestId;
}
