import type { RequestEvent } from '../shared/request-event.js';
import { Correlator } from './correlate.js';
import { createDecoder, type Decoded, type Decoder, type DecoderOptions } from './decode/decode.js';
import type { LearnedDuration } from './decode/duration.js';

/** Decodes the lines of one collector or file, and gives requests the reasons in their error lines. */
export class CorrelatingDecoder implements Decoder {
  readonly #decoder: Decoder;
  readonly #correlator = new Correlator();

  /** Throws a `RangeError` if the time zone does not exist. */
  constructor(options: DecoderOptions) {
    this.#decoder = createDecoder(options);
  }

  decodeLine(bytes: Buffer, from: number, to: number, arrivalMs: number | undefined): Decoded {
    const decoded = this.#decoder.decodeLine(bytes, from, to, arrivalMs);
    // The fast path does not return what identifies a request. It is rarely needed.
    if (
      this.#correlator.size > 0 &&
      decoded.kind === 'request' &&
      decoded.identity === undefined &&
      canFail(decoded.event)
    )
      return this.decode(bytes.toString('utf8', from, to), arrivalMs);
    return this.#correlate(decoded, arrivalMs);
  }

  decode(line: string, arrivalMs: number | undefined): Decoded {
    return this.#correlate(this.#decoder.decode(line, arrivalMs), arrivalMs);
  }

  durationFormats(): Readonly<Record<string, LearnedDuration>> {
    return this.#decoder.durationFormats();
  }

  #correlate(decoded: Decoded, arrivalMs: number | undefined): Decoded {
    if (decoded.kind === 'runtime' && decoded.report !== undefined) {
      const { identity, ...report } = decoded.report;
      this.#correlator.add(identity, report, arrivalMs);
    }
    if (decoded.kind !== 'request' || decoded.identity === undefined || !canFail(decoded.event)) return decoded;
    const { event, identity } = decoded;
    const reason = this.#correlator.take(identity, event.timeMs, arrivalMs);
    if (reason === undefined) return decoded;
    return { ...decoded, event: { ...event, ...reason, upstream: event.upstream || reason.upstream } };
  }
}

/** Whether a request may have an error line. A response that breaks off has status 200 and no duration. */
function canFail({ status, durationMs }: RequestEvent): boolean {
  return status < 100 || status >= 400 || durationMs === null || durationMs === 0;
}
