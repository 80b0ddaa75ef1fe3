#include <algorithm>

#include "fuzz.h"
#include "serve/http_parser.h"

namespace tailor::fuzz {

std::vector<std::string> seeds() {
  return {"GET /v1/models?limit=3&after=a%20b HTTP/1.1\r\nHost: example.com:8080\r\nAuthorization: Bearer x\r\n\r\n",
          "POST /v1/chat/completions HTTP/1.1\r\nHost: [::1]\r\nContent-Length: 11\r\nExpect: 100-continue\r\n\r\n"
          "{\"a\": true}GET / HTTP/1.1\r\nHost: a\r\n\r\n",
          "POST /v1/files HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;name=value\r\nhello\r\n00A\r\n"
          "0123456789\r\n0\r\nTrailer: x\r\n\r\n",
          "GET http://a/x/..%2f HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n",
          "OPTIONS * HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\nContent-Length: 1\r\nTransfer-Encoding: gzip\r\n\r\n"};
}

namespace {

struct Reading {
  HttpParser::Event end = HttpParser::Event::kNeedMore;
  std::size_t consumed = 0;
  std::string method, path, body;
  bool operator==(const Reading&) const = default;
};

Reading read(std::string_view bytes, std::size_t cut) {
  HttpParser parser({.header_bytes = 1024, .header_count = 8, .target_bytes = 256});
  Reading reading;
  std::size_t given = 0;
  for (std::size_t calls = 0;; ++calls) {
    if (calls > 4 * bytes.size() + 16) __builtin_trap();  // no progress
    const auto step = parser.put(bytes.substr(reading.consumed, given - reading.consumed));
    if (step.consumed > given - reading.consumed) __builtin_trap();
    reading.consumed += step.consumed;
    reading.body += step.piece;
    if (step.event == HttpParser::Event::kHead) {
      reading.method = parser.head().method;
      reading.path = parser.head().path;
    }
    if (step.event == HttpParser::Event::kComplete || step.event == HttpParser::Event::kFailed) {
      reading.end = step.event;
      if (step.event == HttpParser::Event::kFailed && parser.status() < 400) __builtin_trap();
      return reading;
    }
    if (step.event != HttpParser::Event::kNeedMore) continue;
    if (given == bytes.size()) return reading;
    given = std::min(bytes.size(), given + cut);
  }
}

}  // namespace
}  // namespace tailor::fuzz

/// However the bytes are cut, the request is the same; what is accepted keeps its promises.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace tailor::fuzz;
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  const Reading whole = read(bytes, bytes.size() + 1);
  for (const std::size_t cut : {1, 7, 300}) {
    const Reading pieces = read(bytes, cut);
    if (pieces.end != whole.end) __builtin_trap();
    // Of a bad body, how much comes through before it is refused depends on the cut.
    if (whole.end != tailor::HttpParser::Event::kFailed && !(pieces == whole)) __builtin_trap();
  }
  if (!whole.path.empty() && whole.path[0] != '/' && whole.path != "*") __builtin_trap();
  if (whole.path.find("/../") != std::string::npos || whole.path.find('\0') != std::string::npos) __builtin_trap();
  if (whole.body.size() > bytes.size()) __builtin_trap();
  return 0;
}
