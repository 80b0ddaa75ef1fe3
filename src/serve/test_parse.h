#pragma once
/// A request read by HttpParser from bytes in pieces.

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <string_view>

#include "serve/http_parser.h"

namespace tailor::test {

struct Parsed {
  int status = 0;  // 0: good
  HttpHead head;
  std::string body;
  bool complete = false, keep_alive = false;
  std::size_t consumed = 0;
};

/// `cut`: how many bytes come at once; 0: all.
inline Parsed parse(std::string_view bytes, std::size_t cut = 0, const HttpParserLimits& limits = {}) {
  HttpParser parser(limits);
  Parsed parsed;
  std::size_t given = cut == 0 ? bytes.size() : std::min(cut, bytes.size());
  for (;;) {
    const HttpParser::Step step = parser.put(bytes.substr(parsed.consumed, given - parsed.consumed));
    parsed.consumed += step.consumed;
    switch (step.event) {
      case HttpParser::Event::kNeedMore:
        if (given == bytes.size()) return parsed;
        given = std::min(given + std::max<std::size_t>(cut, 1), bytes.size());
        break;
      case HttpParser::Event::kHead:
        parsed.head = parser.head();
        parsed.keep_alive = parser.keep_alive();
        break;
      case HttpParser::Event::kBody:
        parsed.body += step.piece;
        break;
      case HttpParser::Event::kComplete:
        parsed.complete = true;
        return parsed;
      case HttpParser::Event::kFailed:
        parsed.status = parser.status();
        EXPECT_FALSE(parser.message().empty());
        return parsed;
    }
  }
}

}  // namespace tailor::test
