/**
 * Selects the requests to store as raw requests. The decision depends on the request alone, so that all collectors
 * and imports agree. Rows of Caddy and an app with the same request id are either both stored or both omitted.
 */
import { hashOf } from '../sketch/hash.js';
import type { RequestEvent } from '../request-event.js';

/** Whether a request is sampled: stored, in addition to being counted. */
export type RequestSample = (request: RequestEvent) => boolean;

/** Samples a fraction of the requests, from 0 (none) to 1 (all). Throws a `RangeError` for any other number. */
export function createRequestSample(ratio: number): RequestSample {
  if (!(ratio >= 0 && ratio <= 1))
    throw new RangeError(`The sample ratio is ${ratio}: it must be a number from 0 to 1.`);
  if (ratio === 1) return () => true;
  return (request) => hashOf(identityOf(request))[0] < ratio * 2 ** 32;
}

/** Identity of a request: its id, or else its logged time and, since clocks repeat, other fields. */
function identityOf({ requestId, timeMs, timeNs, method, status, durationMs, size, uri }: RequestEvent): string {
  return requestId === '' ? `${timeMs} ${timeNs} ${durationMs} ${size} ${status} ${method} ${uri}` : requestId;
}
