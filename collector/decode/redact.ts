/** How much of a rejected line is kept as an example, in characters. */
const exampleLengthMax = 500;

/** The beginning of a line, copied: a slice would keep all of a long line in memory. */
export function beginningOf(line: string): string {
  return line.length > exampleLengthMax ? `${Buffer.from(line.slice(0, exampleLengthMax)).toString()}…` : line;
}

/** Keys whose values are secrets or say who someone is. */
const secretName = /authori[sz]ation|cookie|token|secret|passw|session|credential|signature|api[-_]?key|user_id|remote_|client_ip|forwarded|real-ip|csrf|auth/i;

/**
 * A line that can be shown: the values of secret headers and keys, query strings, addresses of clients, and whatever is as
 * long and mixed as a token are replaced by `…`. Meant for a line's beginning: a value may be cut short.
 */
export function redact(line: string): string {
  return line
    // A JSON key with a text, a list of texts or a scalar.
    .replace(/"((?:[^"\\]|\\.){1,100})"\s*:\s*(\[(?:[^\]"]|"(?:[^"\\]|\\.)*"?)*\]?|"(?:[^"\\]|\\.)*"?|[\w.+-]+)/g, (whole, name: string) => secretName.test(name) ? `"${name}":"…"` : whole)
    .replace(/\?(?:[^\s"\\]|\\.)+/g, '?…')
    // A header or a parameter outside of JSON.
    .replace(/\b([\w-]*(?:authorization|cookie|token|secret|passw(?:or)?d|api[-_]?key))\s*[:=](?!\s*"…")\s*.*/gi, '$1: …')
    .replace(/\b(bearer|basic|digest)\s+[^\s",]+/gi, '$1 …')
    .replace(/[\w+/=.~-]{32,}/g, (run) => /\d/.test(run) && /[a-z]/i.test(run) && !/^[a-z.]+$/i.test(run) ? '…' : run)
    // eslint-disable-next-line no-control-regex -- control characters are what it looks for
    .replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g, '\uFFFD')
    .toWellFormed();
}
