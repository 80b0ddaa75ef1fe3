#pragma once
/// One HTTP/1.1 request out of bytes. Strict where parsers differ, since what two parsers read differently is how
/// requests are smuggled past a proxy.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "core/result.h"
#include "serve/http_chunks.h"
#include "serve/http_message.h"

namespace tailor {

struct HttpParserLimits {
  std::size_t header_bytes = 16 << 10;  // request line and fields with their line ends; also trailers (431)
  std::size_t header_count = 100;       // fields (431)
  std::size_t target_bytes = 8 << 10;   // (414); at most header_bytes
  std::span<const std::string_view> names_under = {};  // see parse_http_target(); whose texts outlive the parser
};

/// Refused with 400: line ends other than CRLF, folded fields, control characters, white space before a colon, no Host
/// or several in HTTP/1.1, a Host that is no authority or differs from an absolute target, Content-Length that is not
/// one number once, Content-Length together with Transfer-Encoding, codings other than "chunked" once, chunks in
/// HTTP/1.0, targets as in http_target.h. 414, 431: limits. 417: expectations other than "100-continue". 501: methods
/// other than those of HttpHead. 505: versions other than 1.0 and 1.1.
class HttpParser {
 public:
  explicit HttpParser(const HttpParserLimits& limits) : limits_(limits) {}

  enum class Event : std::uint8_t { kNeedMore, kHead, kBody, kComplete, kFailed };
  struct Step {
    Event event;
    std::size_t consumed;    // bytes of the front that need not be given again; the rest has to come again, and more
    std::string_view piece;  // kBody: bytes of the body, within those given
  };
  /// After kHead and kBody call again with what is left, even nothing: kComplete may follow without further bytes. A
  /// head is consumed as a whole: up to header_bytes stay with the caller until then.
  Step put(std::string_view bytes);

  HttpHead& head() { return head_; }                        ///< from kHead on
  bool keep_alive() const { return keep_alive_; }           ///< what the client wishes
  bool http_1_0() const { return http_1_0_; }               ///< no chunks to such a client
  bool has_body() const { return chunks_ || length_ > 0; }  ///< from kHead until read
  bool expects_continue() const { return expects_continue_; }
  int status() const { return status_; }  ///< kFailed: what to answer, and why
  const std::string& message() const { return message_; }

 private:
  Step put_head(std::string_view bytes);
  Step fail(int status, std::string message);
  bool refuse(int status, std::string message);  // false, for `return refuse(...)`
  bool check_line_so_far(std::string_view bytes);
  bool parse_request_line(std::string_view line);
  bool parse_fields(std::string_view lines);
  bool interpret_fields();
  bool interpret_host();
  bool interpret_length();

  HttpParserLimits limits_;
  HttpHead head_;
  std::string authority_;
  enum class State : std::uint8_t { kHead, kBody, kDone } state_ = State::kHead;
  std::size_t scanned_ = 0, line_begin_ = 0;  // of an incomplete head: bytes looked at, begin of the last line
  bool line_checked_ = false;                 // the request line of an incomplete head
  bool http_1_0_ = false, keep_alive_ = false, expects_continue_ = false;
  std::uint64_t length_ = 0;  // of the body, what is left
  std::optional<ChunkDecoder> chunks_;
  int status_ = 0;
  std::string message_;
};

/// Whether `head` (request line, fields, empty line) is one complete and good head. For checks without a server.
Status check_request_head(std::string_view head, const HttpParserLimits& limits = {});

}  // namespace tailor
