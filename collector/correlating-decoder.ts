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
    // The fast path does not return what identifies a request. It is rarely needed.
    return this.#correlator.size === 0
      ? this.#correlate(this.#decoder.decodeLine(bytes, from, to, arrivalMs))
      : this.decode(bytes.toString('utf8', from, to), arrivalMs);
  }

  decode(line: string, arrivalMs: number | undefined): Decoded {
    return this.#correlate(this.#decoder.decode(line, arrivalMs));
  }

  durationFormats(): Readonly<Record<string, LearnedDuration>> {
    return this.#decoder.durationFormats();
  }

  #correlate(decoded: Decoded): Decoded {
    if (decoded.kind === 'runtime' && decoded.report !== undefined)
      this.#correlator.add(decoded.report.identity, decoded.report.report);
    if (decoded.kind !== 'request' || decoded.identity === undefined) return decoded;
    const { event, identity } = decoded;
    const reason = this.#correlator.take(identity, event.timeMs);
    if (reason === undefined) return decoded;
    return { ...decoded, event: { ...event, ...reason, upstream: event.upstream || reason.upstream } };
  }
}
