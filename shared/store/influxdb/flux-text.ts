import { fluxExpression, type FluxParameterLike } from '@influxdata/influxdb-client';

/**
 * Returns a Flux string literal for the `flux` template.
 *
 * The client's own escaping is unsafe: it turns `$"` into `"$\""`, where Flux (InfluxDB 2.7.12) reads `$\` as two
 * plain characters and `"` as the end of the literal, so that the rest of a host or a path would be code. Here every
 * UTF-8 byte except letters, digits and a few safe characters becomes `\xNN`.
 */
export function fluxText(text: string): FluxParameterLike {
  return fluxExpression(`"${bytes(text, /[^A-Za-z0-9 ./:_-]+/gu)}"`);
}

/**
 * Returns a Flux regular expression that matches `whole`, or any text with one of the prefixes `starts`. InfluxDB
 * evaluates it while it reads from disk; a function such as `strings.hasPrefix` is called for each row and takes
 * thirty times as long.
 */
export function fluxWholeOrStart(whole: string, ...starts: string[]): FluxParameterLike {
  // Flux decodes the bytes before it parses the expression.
  return fluxExpression(`/${bytes(`^(${literal(whole)}$|${starts.map(literal).join('|')})`, /[^A-Za-z0-9]+/gu)}/`);
}

/**
 * Returns a Flux regular expression that matches any of the texts. InfluxDB rejects a chain of 200 comparisons as
 * nested too deeply.
 */
export function fluxAnyOf(texts: readonly string[]): FluxParameterLike {
  return fluxExpression(`/${bytes(`^(${texts.map(literal).join('|')})$`, /[^A-Za-z0-9]+/gu)}/`);
}

function bytes(text: string, special: RegExp): string {
  return text.replaceAll(special, (part) => Buffer.from(part).toString('hex').replaceAll(/../g, '\\x$&'));
}

function literal(text: string): string {
  return text.replaceAll(/[\\^$.*+?()[\]{}|]/g, '\\$&');
}
