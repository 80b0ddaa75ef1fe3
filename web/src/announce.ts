/**
 * What screen readers hear. An answer is announced by whole sentences while it is written: each piece by itself would
 * be spelt out in fragments, the whole at the end would come late.
 */

import { find } from "./dom.ts";

export function announce(text: string): void {
  find("announcer").textContent = text;
}

export class StreamAnnouncer {
  private rest = "";

  push(text: string): void {
    this.rest += text;
    const end = /^[\s\S]*[.!?:](?=\s)|^[\s\S]*\n/.exec(this.rest);
    if (!end) return;
    announce(end[0].trim());
    this.rest = this.rest.slice(end[0].length);
  }

  finish(last = ""): void {
    announce(`${this.rest} ${last}`.trim());
    this.rest = "";
  }
}
