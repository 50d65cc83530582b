import { fluxExpression, type FluxParameterLike } from '@influxdata/influxdb-client';

/**
 * A text as a Flux string literal, for the `flux` template.
 *
 * The client's own quoting is not used, because it can be broken out of: it turns `$"` into `"$\""`, where Flux
 * (InfluxDB
 * 2.7.12) reads `$\` as two plain characters and `"` as the end, so that the rest of a host or a path would be a query. Here
 * every byte of UTF-8 but letters, digits and a few harmless marks becomes `\xNN`: nothing is left that could mean
 * something.
 */
export function fluxText(text: string): FluxParameterLike {
  return fluxExpression(`"${bytes(text, /[^A-Za-z0-9 ./:_-]+/gu)}"`);
}

/**
 * A Flux regular expression that finds the texts that are `whole`, and those that start with one of `starts`. InfluxDB
 * looks for it while it reads from disk: a function such as `strings.hasPrefix`, called for each row, took thirty times
 * as long.
 */
export function fluxWholeOrStart(whole: string, ...starts: string[]): FluxParameterLike {
  // Flux turns the bytes into characters before it reads the expression.
  return fluxExpression(`/${bytes(`^(${literal(whole)}$|${starts.map(literal).join('|')})`, /[^A-Za-z0-9]+/gu)}/`);
}

/**
 * A Flux regular expression that finds any of the texts. As a chain of comparisons, InfluxDB refuses 200 of them as
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
