/** Server-sent events: the data of each, whatever pieces the bytes come in. */

export class EventReader {
  private readonly decoder = new TextDecoder();
  private rest = "";
  private data: string[] = [];

  /** The events that are whole after these bytes. */
  push(bytes: Uint8Array): string[] {
    this.rest += this.decoder.decode(bytes, { stream: true });
    const out: string[] = [];
    for (;;) {
      const end = this.rest.search(/[\r\n]/);
      // A CR at the end may be half of CR LF.
      if (end < 0 || (this.rest[end] === "\r" && end + 1 === this.rest.length)) return out;
      const line = this.rest.slice(0, end);
      this.rest = this.rest.slice(end + (this.rest.startsWith("\r\n", end) ? 2 : 1));
      if (line === "") {
        if (this.data.length > 0) out.push(this.data.join("\n"));
        this.data = [];
      } else if (line.startsWith("data:")) {
        this.data.push(line.slice(line[5] === " " ? 6 : 5));
      } // comments and other fields carry nothing here
    }
  }
}
