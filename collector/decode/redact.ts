/**
 * Redacts examples of rejected lines. Their format is unknown, so values are classified by their appearance: keys,
 * words, small numbers and times stay, and everything else is hidden.
 */

/** Maximum length of an example, in characters. */
const exampleLengthMax = 500;

/** Returns the beginning of a line as a copy: a slice would retain the whole line in memory. */
export function beginningOf(line: string): string {
  return line.length > exampleLengthMax ? `${Buffer.from(line.slice(0, exampleLengthMax)).toString()}…` : line;
}

const hidden = '…';

/** Keys whose values are secrets or identify a person. */
const secretName =
  /authori[sz]ation|cookie|token|secret|passw|pwd|session|sess_?id|credential|signature|api[-_]?key|user_?(?:id|name)|remote_|client_ip|forwarded|real-ip|csrf|auth|jwt|bearer|websocket-protocol|\botp\b|e-?mail|phone/i;
/** Keys of personal data. If the value is an object, its own keys decide instead. */
const personalName = /^(?:user|name|login|address|query|query_string)$/i;
const secretWord = String.raw`[\w-]{0,100}(?:authori[sz]ation|cookie|token|secret|passw(?:or)?d|pwd|api[-_]?key|session|sessid|signature|forwarded-for|real-ip|csrf|jwt)`;
/** A header or a parameter outside of JSON, up to the end of the text. */
const secretPair = new RegExp(String.raw`(?<![\w-])(${secretWord})['\]]?\s*[:=](?!\s*"…")\s*.*`, 'gis');
const endsWithSecretName = new RegExp(String.raw`${secretWord}['\]]?\s*[:=]\s*\[?\s*$`, 'i');
/** A header name in a list that alternates names and values, such as `rawHeaders`. */
const secretItem = new RegExp(String.raw`^${secretWord}$`, 'i');
/** Tokens with a known prefix, and the credentials after `curl -u`. */
const namedToken =
  /\b(?:sk|pk|rk)_(?:live|test)_\w+|\b(?:gh[opsu]|github_pat|glpat|xox[a-z])[_-][\w-]+|(?<=\s-u\s+)\S+/g;
const scheme = /\b(bearer|basic|digest|negotiate|apikey)\s+[^\s",]+/gi;
/** Path segments that precede a token. */
const tokenPath =
  /(\/[\w-]{0,60}(?:reset|verif|confirm|activat|token|invit|unsubscri|magic|auth|passw|recover|session|share|secret|key|sign|otp|login|download)[\w-]{0,60})\/[^\s?#"]+/gi;

/** Text that stays: times, and terminal colours. */
const time = String.raw`\d{4}[-/]\d\d[-/]\d\d(?:[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?: ?(?:Z|[+-]\d\d:?\d\d))?)?|\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d(?: [+-]\d{4})?|\d\d:\d\d:\d\d(?:\.\d{1,9})?`;
const visible = new RegExp(String.raw`((?<![\w.:/-])(?:${time})(?![\w:-])|\u001b\[[\d;]*m)`);

/**
 * Replaces IP addresses, e-mail addresses, tokens, values of cookies and other secrets, query strings and the like with
 * `…`, even if the line is wrapped, escaped, percent-encoded or truncated. Preserves its structure. Meant for the
 * beginning of a line.
 */
export function redact(line: string): string {
  return (
    redactText(decoded(line))
      // eslint-disable-next-line no-control-regex -- control characters are what it looks for
      .replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g, '\uFFFD')
      .toWellFormed()
  );
}

/** Maximum number of nested percent-encodings. */
const encodingsMax = 3;

/** Decodes escapes, except quotes and backslashes, which are structure, and spaces, which would end a value. */
function decoded(line: string): string {
  const character = (whole: string, code: string): string => {
    const found = String.fromCharCode(Number.parseInt(code, 16));
    return found === ' ' ? '+' : found === '"' || found === '\\' || found === '\u007f' ? whole : found;
  };
  let text = line.replace(/\\+\//g, '/');
  for (let round = 0; round < encodingsMax; round += 1) {
    text = text.replace(/\\+u00([2-7][0-9a-f])/gi, character).replace(/%([2-7][0-9a-f])/gi, character);
  }
  return text;
}

/**
 * Redacts a text with quoted strings. Quotes of nested JSON have more backslashes. A string ends at the next quote with
 * at most as many backslashes as its opening quote.
 */
function redactText(text: string): string {
  let shown = '';
  for (let at = 0; at < text.length; ) {
    const opening = quoteFrom(text, at);
    const plain = text.slice(at, opening?.from);
    shown += redactWords(plain);
    if (opening === undefined) return shown;
    const { from, to: start, depth } = opening;
    // An unquoted secret before a quote: the end of its value is unknown.
    if (endsWithSecretName.test(plain) || /\?\S*$/.test(plain)) return `${shown}${hidden}`;
    const closing = closingQuote(text, start, depth);
    const content = text.slice(start, closing?.from);
    const quote = text.slice(from, start);
    at = closing?.to ?? text.length;
    if (plain.endsWith('=')) {
      shown += `${quote}${hidden}${closing === undefined ? '' : quote}`;
      continue;
    }
    const colon = /^\s*:(?!:)\s*/.exec(text.slice(at))?.[0]; // two colons start an IPv6 address
    const comma =
      colon === undefined && secretItem.test(content) ? /^\s*,\s*(?=\\*")/.exec(text.slice(at))?.[0] : undefined;
    const separator = colon ?? comma;
    if (closing === undefined || separator === undefined) {
      shown += quote + redactString(content) + (closing === undefined ? '' : quote);
    } else if (
      comma !== undefined ||
      secretName.test(content) ||
      (personalName.test(content) && text[at + separator.length] !== '{')
    ) {
      shown += `${quote}${redactWords(content)}${quote}${comma ?? ':'}${quote}${hidden}${quote}`;
      const end = valueEnd(text, at + separator.length, depth);
      if (end === undefined) return shown;
      at = end;
    } else {
      shown += `${quote}${redactWords(content)}${quote}${separator}`;
      at += separator.length;
    }
  }
  return shown;
}

/** A header or a parameter in a message, whose name may be quoted. */
const secretPairInMessage = new RegExp(String.raw`(?<![\w-])(${secretWord})[\\'"\]]{0,4}\s*[:=].*`, 'gis');

/** Whether a field may hold a secret or personal data. */
export function isSecretName(name: string): boolean {
  return secretName.test(name) || /^(?:remote|client|peer|headers?)(?:_|$)/i.test(name);
}

/**
 * Hides secrets in a message of Caddy: query strings, credentials in URLs, tokens, cookies and e-mail addresses.
 * Unlike `redact`, keeps addresses and unknown words, since the message says what failed. Pass at most some thousand
 * characters: its time grows with them.
 */
export function redactSecrets(message: string): string {
  return message
    .replace(/:\/\/[^\s/"']*@/g, `://${hidden}@`)
    .replace(/[?#][^\s"']+/g, (query) => `${query[0]}${hidden}`)
    .replace(secretPairInMessage, `$1: ${hidden}`)
    .replace(tokenPath, `$1/${hidden}`)
    .replace(scheme, `$1 ${hidden}`)
    .replace(namedToken, hidden)
    .replace(/(?<![^\s"'<>()[\]{},;|/])[^\s"'<>()[\]{},;|/@＠]+[@＠][\w.-]+\.\w+/g, (address) =>
      address.startsWith(hidden) ? address : hidden,
    )
    .replace(/[\w+=~-]{32,}/g, (run) => (/\d/.test(run) && /[a-z]/i.test(run) && !uuid.test(run) ? hidden : run))
    .toWellFormed();
}

const uuid = /^[\da-f]{8}(?:-[\da-f]{4}){3}-[\da-f]{12}$/i;

/** Redacts the content of a string: a text with nested strings, such as a wrapped line, or a value. */
function redactString(content: string): string {
  const isText = /^\s*[{[]/.test(content) || /(\\+)"[^"\\]{1,100}\1"\s*:/.test(content);
  return isText && content.includes('\\"') ? redactText(content) : redactWords(content);
}

interface Quote {
  readonly from: number;
  readonly to: number;
  /** Number of backslashes before it. */
  readonly depth: number;
}

function quoteFrom(text: string, at: number): Quote | undefined {
  const to = text.indexOf('"', at) + 1;
  if (to === 0) return undefined;
  let from = to - 1;
  while (from > at && text[from - 1] === '\\') from -= 1;
  return { from, to, depth: to - 1 - from };
}

function closingQuote(text: string, start: number, depth: number): Quote | undefined {
  for (let quote = quoteFrom(text, start); quote !== undefined; quote = quoteFrom(text, quote.to))
    if (quote.depth <= depth) return quote;
  return undefined;
}

/**
 * Returns the end of a value: a string, a list of strings, or a word. Returns `undefined` if it is truncated or
 * anything else.
 */
function valueEnd(text: string, from: number, depth: number): number | undefined {
  const string = (at: number): number | undefined => {
    const opening = quoteFrom(text, at);
    if (opening?.from !== at || opening.depth !== depth) return undefined;
    const closing = closingQuote(text, opening.to, depth);
    return closing?.depth === depth ? closing.to : undefined;
  };
  let end: number | undefined;
  if (text[from] === '[') {
    end = from + 1;
    for (let separator = /^\s*/; text[end] !== ']'; separator = /^\s*,\s*/) {
      const item = separator.exec(text.slice(end));
      end = item === null ? undefined : string(end + item[0].length);
      if (end === undefined) return undefined;
    }
    end += 1;
  } else {
    const word = /^[\w.+-]+/.exec(text.slice(from));
    end = word === null ? string(from) : from + word[0].length;
  }
  // A value precedes a comma or a bracket. Anything else means that this is not JSON.
  return end === undefined || !/^\s*(?:[,}\]]|$)/.test(text.slice(end)) ? undefined : end;
}

/** Redacts text without structure. */
function redactWords(text: string): string {
  return text
    .replace(/[?#]\S+/g, (query) => `${query[0]}${hidden}`)
    .replace(secretPair, `$1: ${hidden}`)
    .replace(/ - (?!-(?: |$))\S+(?= \[|\s*$)/g, ` - ${hidden}`)
    .split(visible)
    .map((part, at) => (at % 2 === 1 ? part : redactUntimed(part)))
    .join('');
}

function redactUntimed(text: string): string {
  return (
    text
      .replace(tokenPath, `$1/${hidden}`)
      .replace(scheme, `$1 ${hidden}`)
      .replace(namedToken, hidden)
      .replace(/[^\s"'<>()[\]{},;|]+[@＠][^\s"'<>()[\]{},;|]*/g, hidden)
      .replace(/[\w+/=.~-]{32,}/g, (run) => (/\d/.test(run) && /[a-z]/i.test(run) ? hidden : run))
      // An IPv6 address, or the beginning of one.
      .replace(/(?<!\w)(?:[\da-f]{0,4}:){2,8}[\da-f]{0,4}(?:[.%][\w.%]+)*/gi, hidden)
      // Two hexadecimal groups may be the rest of a truncated one.
      .replace(/(?<!\w)(?=[\da-f:]*\d)(?:[\da-f]{3,4}:)[\da-f]{1,4}(?!\w)/gi, hidden)
      .replace(/(?<![\d.])\d{1,3}(?:\.\d{1,3}){2,}(?!\d)/g, hidden)
      .replace(/=[^\s,;&"{}[\]()]+/g, (pair) => (pair === `=${hidden}` ? pair : `=${hidden}`))
      .replace(/[\p{L}\p{N}_%+~$!.-]+(?=(…$)?)/gu, (word, cut: string | undefined) =>
        cut === undefined && isHarmless(word) ? word : hidden,
      )
      .replace(/…{2,}/g, hidden)
  );
}

const wordLengthMax = 64;

/** Whether a word is a number or consists of natural words, unlike a token. */
function isHarmless(word: string): boolean {
  if (/^[-+.]*(?:\d{1,10}(?:\.\d{1,9})?(?:e[+-]\d{1,3})?|1\d{12}(?:\d{3})?|1\d{18})[.-]*$/i.test(word)) return true;
  if (word.length > wordLengthMax || word.includes('%')) return false;
  const parts = word.split(/[_+~$!.-]/);
  const partsWithDigits = parts.filter((part) => /\p{N}/u.test(part));
  // In natural words, a capital rarely follows a lower-case letter, and three hardly ever do.
  if (/(?:\p{Ll}\p{Lu}.*){2}|\p{Ll}\p{Lu}{3}/u.test(word)) return false;
  return (
    partsWithDigits.length <= 1 && parts.every((part) => /^(?:\p{L}{0,15}|\p{L}{1,4}\d{1,2}|\d{1,3})$/u.test(part))
  );
}
