/**
 * Makes external text safe for a terminal: control characters, which could move the cursor or change colours, are
 * escaped as `\\u001b`. Line breaks and tabs stay.
 */
export function printable(text: string): string {
  return text.toWellFormed().replace(controls, escapeOf);
}

/** Like `printable`, but escapes line breaks and tabs, too. The result is a single line. */
export function printableLine(text: string): string {
  return printable(text).replace(/[\n\t]/g, escapeOf);
}

function escapeOf(character: string): string {
  return `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`;
}

// eslint-disable-next-line no-control-regex -- matches control characters
const controls = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g;
