#include "serve/http_parser.h"

#include <fmt/format.h>

#include <algorithm>

#include "serve/http_target.h"

namespace tailor {
namespace {

constexpr std::string_view kMethods[] = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY"};
constexpr std::size_t kMaxMethod = 32;  // bytes; longer ones are no methods but noise

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

/// "HTTP/d.d"
bool is_version(std::string_view text) {
  return text.size() == 8 && text.substr(0, 5) == "HTTP/" && is_digit(text[5]) && text[6] == '.' && is_digit(text[7]);
}

/// Words of a list ("close, Keep-Alive"); nothing where one is no token.
std::optional<std::vector<std::string_view>> words_of(std::string_view list) {
  std::vector<std::string_view> words;
  while (!list.empty()) {
    std::string_view word = list.substr(0, list.find(','));
    list.remove_prefix(std::min(list.size(), word.size() + 1));
    while (!word.empty() && (word.front() == ' ' || word.front() == '\t')) word.remove_prefix(1);
    while (!word.empty() && (word.back() == ' ' || word.back() == '\t')) word.remove_suffix(1);
    if (!std::all_of(word.begin(), word.end(), is_token_char)) return std::nullopt;
    if (!word.empty()) words.push_back(word);
  }
  return words;
}

}  // namespace

bool HttpParser::refuse(int status, std::string message) {
  status_ = status;
  message_ = std::move(message);
  return false;
}

HttpParser::Step HttpParser::fail(int status, std::string message) {
  refuse(status, std::move(message));
  state_ = State::kDone;
  return {Event::kFailed, 0, {}};
}

HttpParser::Step HttpParser::put(std::string_view bytes) {
  switch (state_) {
    case State::kHead:
      return put_head(bytes);
    case State::kDone:
      return {status_ == 0 ? Event::kComplete : Event::kFailed, 0, {}};
    case State::kBody:
      break;
  }
  if (chunks_) {
    const ChunkDecoder::Step step = chunks_->put(bytes);
    if (step.event == ChunkDecoder::Event::kNeedMore) return {Event::kNeedMore, step.consumed, {}};
    if (step.event == ChunkDecoder::Event::kPiece) return {Event::kBody, step.consumed, step.piece};
    if (step.event == ChunkDecoder::Event::kFailed) return fail(400, chunks_->flaw());
    state_ = State::kDone;
    chunks_.reset();
    return {Event::kComplete, step.consumed, {}};
  }
  if (length_ == 0) {
    state_ = State::kDone;
    return {Event::kComplete, 0, {}};
  }
  const std::size_t n = static_cast<std::size_t>(std::min<std::uint64_t>(length_, bytes.size()));
  length_ -= n;
  return {n > 0 ? Event::kBody : Event::kNeedMore, n, bytes.substr(0, n)};
}

HttpParser::Step HttpParser::put_head(std::string_view bytes) {
  std::size_t end = 0;
  for (std::size_t lf; end == 0 && (lf = bytes.find('\n', scanned_)) != std::string_view::npos; scanned_ = lf + 1) {
    if (lf == 0 || bytes[lf - 1] != '\r') return fail(400, "a line of the head does not end with CRLF");
    if (lf - line_begin_ == 1 && line_begin_ > 0) end = lf + 1;
    line_begin_ = lf + 1;
  }
  if (end == 0) {
    scanned_ = bytes.size();
    if (!check_line_so_far(bytes)) return fail(status_, std::move(message_));
    if (bytes.size() < limits_.header_bytes) return {Event::kNeedMore, 0, {}};
  }
  if (end == 0 || end > limits_.header_bytes) {
    return fail(431, fmt::format("the head is longer than {} bytes", limits_.header_bytes));
  }
  const std::size_t line = bytes.find("\r\n");
  if (!parse_request_line(bytes.substr(0, line)) || !parse_fields(bytes.substr(line + 2, end - line - 4)) ||
      !interpret_fields()) {
    return fail(status_, std::move(message_));
  }
  state_ = State::kBody;
  return {Event::kHead, end, {}};
}

/// What is wrong already is said before the rest comes: clients of other protocols would wait for ever.
bool HttpParser::check_line_so_far(std::string_view bytes) {
  if (line_checked_) return true;
  const std::size_t end = bytes.find("\r\n");
  if (end != std::string_view::npos) {
    line_checked_ = true;
    return parse_request_line(bytes.substr(0, end));
  }
  const std::size_t space = bytes.find(' ');
  const std::string_view method = bytes.substr(0, space);
  if (!std::all_of(method.begin(), method.end(), is_token_char) || method.size() > kMaxMethod) {
    return refuse(400, "this is no HTTP request");
  }
  if (space == std::string_view::npos) return true;
  const std::string_view target = bytes.substr(space + 1);
  if (std::min(target.find(' '), target.size()) <= limits_.target_bytes) return true;
  return refuse(414, fmt::format("the target is longer than {} bytes", limits_.target_bytes));
}

bool HttpParser::parse_request_line(std::string_view line) {
  const std::size_t first = line.find(' ');
  const std::size_t last = line.rfind(' ');
  if (first == std::string_view::npos || first == 0 || first == last) {
    return refuse(400, "the request line is not \"METHOD TARGET VERSION\"");
  }
  const std::string_view method = line.substr(0, first);
  const std::string_view target = line.substr(first + 1, last - first - 1);
  const std::string_view version = line.substr(last + 1);
  if (!std::all_of(method.begin(), method.end(), is_token_char)) return refuse(400, "the method is no token");
  if (!is_version(version)) return refuse(400, "the request line does not end with a version");
  if (version != "HTTP/1.1" && version != "HTTP/1.0") {
    return refuse(505, fmt::format("{} is not supported; use HTTP/1.1", version));
  }
  if (target.size() > limits_.target_bytes) {
    return refuse(414, fmt::format("the target is longer than {} bytes", limits_.target_bytes));
  }
  if (std::find(std::begin(kMethods), std::end(kMethods), method) == std::end(kMethods)) {
    return refuse(501, "the method is not one of GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE, QUERY");
  }
  auto parsed = parse_http_target(method, target, limits_.names_under);
  if (!parsed) return refuse(400, parsed.error().message);
  head_.method = method;
  head_.path = std::move(parsed->path);
  head_.query = std::move(parsed->query);
  authority_ = std::move(parsed->authority);
  http_1_0_ = version == "HTTP/1.0";
  return true;
}

bool HttpParser::parse_fields(std::string_view lines) {
  while (!lines.empty()) {
    const std::size_t end = lines.find("\r\n");  // every line has one, the last included
    std::string_view name, value;
    if (!parse_field_line(lines.substr(0, end), &name, &value)) {
      return refuse(400, fmt::format("field {} of the head is not \"Name: value\"", head_.headers.size() + 1));
    }
    if (head_.headers.size() == limits_.header_count) {
      return refuse(431, fmt::format("the head has more than {} fields", limits_.header_count));
    }
    head_.headers.add(std::string(name), std::string(value));
    lines.remove_prefix(end + 2);
  }
  return true;
}

bool HttpParser::interpret_fields() {
  bool close = false, keep = false;
  for (const HttpHeader& field : head_.headers) {
    if (!same_name(field.name, "Connection")) continue;
    const auto words = words_of(field.value);
    if (!words) return refuse(400, "the Connection field is no list of words");
    for (const std::string_view word : *words) {
      close = close || same_name(word, "close");
      keep = keep || same_name(word, "keep-alive");
    }
  }
  keep_alive_ = !close && (keep || !http_1_0_);
  if (const std::string* expect = head_.headers.find("Expect"); expect != nullptr && !http_1_0_) {
    if (!same_name(*expect, "100-continue")) return refuse(417, "the only expectation that is met is \"100-continue\"");
    expects_continue_ = true;
  }
  return interpret_host() && interpret_length();
}

bool HttpParser::interpret_host() {
  const std::size_t count = head_.headers.count("Host");
  if (count > 1) return refuse(400, "the head has several Host fields");
  if (count == 0) {
    if (!http_1_0_ || !authority_.empty()) return refuse(400, "the head has no Host field");
    return true;
  }
  const std::string& host = *head_.headers.find("Host");
  auto parsed = parse_http_authority(host);
  if (!parsed) return refuse(400, "Host: " + parsed.error().message);
  if (!authority_.empty() && !same_name(authority_, host)) {
    return refuse(400, "the target and the Host field name different hosts");
  }
  head_.host = std::move(parsed->host);
  head_.port = std::move(parsed->port);
  return true;
}

bool HttpParser::interpret_length() {
  const std::size_t lengths = head_.headers.count("Content-Length");
  const std::size_t codings = head_.headers.count("Transfer-Encoding");
  if (codings > 0) {
    if (lengths > 0) return refuse(400, "the head has both Content-Length and Transfer-Encoding");
    if (codings > 1 || !same_name(*head_.headers.find("Transfer-Encoding"), "chunked")) {
      return refuse(400, "the only transfer encoding that is understood is \"chunked\"");
    }
    if (http_1_0_) return refuse(400, "HTTP/1.0 has no transfer encodings");
    chunks_.emplace(limits_.header_bytes);
    return true;
  }
  if (lengths == 0) return true;
  const std::string& text = *head_.headers.find("Content-Length");
  if (lengths > 1 || text.empty() || text.size() > 18 || !std::all_of(text.begin(), text.end(), is_digit)) {
    return refuse(400, "Content-Length is not one number");
  }
  for (const char digit : text) length_ = length_ * 10 + static_cast<std::uint64_t>(digit - '0');
  head_.content_length = length_;
  return true;
}

Status check_request_head(std::string_view head, const HttpParserLimits& limits) {
  HttpParser parser(limits);
  const HttpParser::Step step = parser.put(head);
  if (step.event == HttpParser::Event::kFailed) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("status {}: {}", parser.status(), parser.message()), ""};
  }
  if (step.event != HttpParser::Event::kHead) return Error{ErrorCode::kInvalidArgument, "the head is not complete", ""};
  if (step.consumed != head.size()) return Error{ErrorCode::kInvalidArgument, "bytes follow the head", ""};
  return {};
}

}  // namespace tailor
