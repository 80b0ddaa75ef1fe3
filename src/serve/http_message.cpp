#include "serve/http_message.h"

#include <fmt/format.h>

#include <algorithm>
#include <ctime>

namespace tailor {
namespace {

char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  const char l = lower(c);
  return l >= 'a' && l <= 'f' ? l - 'a' + 10 : -1;
}

bool is_servers_own(std::string_view name) {
  for (const std::string_view own : {"Content-Length", "Transfer-Encoding", "Connection", "Date"}) {
    if (same_name(name, own)) return true;
  }
  return false;
}

bool breaks_framing(const HttpHeader& field) {
  const auto control = [](char c) { return (static_cast<unsigned char>(c) < 32 && c != '\t') || c == 127; };
  const auto not_a_name = [&](char c) { return control(c) || c == ':' || c == ' ' || c == '\t'; };
  return field.name.empty() || std::any_of(field.name.begin(), field.name.end(), not_a_name) ||
         std::any_of(field.value.begin(), field.value.end(), control);
}

void append_field(std::string& out, std::string_view name, std::string_view value) {
  out.append(name).append(": ").append(value).append("\r\n");
}

}  // namespace

bool same_name(std::string_view a, std::string_view b) {
  return a.size() == b.size() &&
         std::equal(a.begin(), a.end(), b.begin(), [](char x, char y) { return lower(x) == lower(y); });
}

const std::string* HttpHeaders::find(std::string_view name) const {
  for (const HttpHeader& field : fields_) {
    if (same_name(field.name, name)) return &field.value;
  }
  return nullptr;
}

std::size_t HttpHeaders::count(std::string_view name) const {
  return static_cast<std::size_t>(
      std::count_if(fields_.begin(), fields_.end(), [&](const HttpHeader& f) { return same_name(f.name, name); }));
}

std::optional<std::string> percent_decode(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    if (i + 2 >= text.size()) return std::nullopt;
    const int high = hex_digit(text[i + 1]), low = hex_digit(text[i + 2]);
    if (high < 0 || low < 0) return std::nullopt;
    out += static_cast<char>(high * 16 + low);
    i += 2;
  }
  return out;
}

namespace {

std::optional<std::string> decode_query(std::string_view text) {
  std::string spaces(text);
  std::replace(spaces.begin(), spaces.end(), '+', ' ');
  return percent_decode(spaces);
}

/// "name=value" at the front of `query`, which is taken from it.
std::string_view take_pair(std::string_view& query) {
  const std::string_view pair = query.substr(0, query.find('&'));
  query.remove_prefix(std::min(query.size(), pair.size() + 1));
  return pair;
}

}  // namespace

std::optional<std::string> query_parameter(std::string_view query, std::string_view name) {
  while (!query.empty()) {
    const std::string_view pair = take_pair(query);
    const std::size_t equals = pair.find('=');
    if (decode_query(pair.substr(0, equals)) != name) continue;
    return equals == std::string_view::npos ? std::string() : decode_query(pair.substr(equals + 1));
  }
  return std::nullopt;
}

std::vector<std::string> query_names(std::string_view query) {
  constexpr std::size_t kMost = 100;
  std::vector<std::string> out;
  while (!query.empty() && out.size() < kMost) {
    const std::string_view pair = take_pair(query), name = pair.substr(0, pair.find('='));
    std::string decoded = decode_query(name).value_or(std::string(name));
    if (!decoded.empty() && std::find(out.begin(), out.end(), decoded) == out.end()) out.push_back(std::move(decoded));
  }
  return out;
}

std::string_view reason_phrase(int status) {
  struct Phrase {
    int status;
    std::string_view text;
  };
  static constexpr Phrase kPhrases[] = {
      {200, "OK"},
      {201, "Created"},
      {202, "Accepted"},
      {204, "No Content"},
      {206, "Partial Content"},
      {301, "Moved Permanently"},
      {302, "Found"},
      {303, "See Other"},
      {304, "Not Modified"},
      {307, "Temporary Redirect"},
      {308, "Permanent Redirect"},
      {400, "Bad Request"},
      {401, "Unauthorized"},
      {403, "Forbidden"},
      {404, "Not Found"},
      {405, "Method Not Allowed"},
      {406, "Not Acceptable"},
      {408, "Request Timeout"},
      {409, "Conflict"},
      {410, "Gone"},
      {411, "Length Required"},
      {412, "Precondition Failed"},
      {413, "Content Too Large"},
      {414, "URI Too Long"},
      {415, "Unsupported Media Type"},
      {416, "Range Not Satisfiable"},
      {417, "Expectation Failed"},
      {421, "Misdirected Request"},
      {422, "Unprocessable Content"},
      {424, "Failed Dependency"},
      {426, "Upgrade Required"},
      {429, "Too Many Requests"},
      {431, "Request Header Fields Too Large"},
      {500, "Internal Server Error"},
      {501, "Not Implemented"},
      {502, "Bad Gateway"},
      {503, "Service Unavailable"},
      {504, "Gateway Timeout"},
      {505, "HTTP Version Not Supported"},
      {507, "Insufficient Storage"},
  };
  for (const Phrase& phrase : kPhrases) {
    if (phrase.status == status) return phrase.text;
  }
  return "Status";
}

bool may_have_body(int status) {
  return status >= 200 && status != 204 && status != 304;
}

SerialisedHead serialise_head(int status, const HttpHeaders& headers, std::optional<std::uint64_t> body_bytes) {
  if (status < 200 || status > 599 || std::any_of(headers.begin(), headers.end(), breaks_framing)) {
    return {serialise_head(500, {}, 0).text, false};
  }
  std::string out;
  out.reserve(256);
  fmt::format_to(std::back_inserter(out), "HTTP/1.1 {} {}\r\n", status, reason_phrase(status));
  bool nosniff = false;
  for (const HttpHeader& field : headers) {
    if (is_servers_own(field.name)) continue;
    nosniff = nosniff || same_name(field.name, "X-Content-Type-Options");
    append_field(out, field.name, field.value);
  }
  if (!nosniff) out += "X-Content-Type-Options: nosniff\r\n";
  if (body_bytes && may_have_body(status))
    fmt::format_to(std::back_inserter(out), "Content-Length: {}\r\n", *body_bytes);
  return {std::move(out), true};
}

PreparedResponse::PreparedResponse(HttpResponse response) : status_(response.status), body_(std::move(response.body)) {
  if (!may_have_body(status_)) body_.clear();
  SerialisedHead head = serialise_head(status_, response.headers, body_.size());
  head_ = std::move(head.text);
  if (head.usable) return;
  status_ = 500;
  body_.clear();
}

std::string_view date_field() {
  thread_local std::time_t second = -1;
  thread_local std::string text;
  timespec now{};
  clock_gettime(CLOCK_REALTIME_COARSE, &now);
  if (now.tv_sec != second) {
    // Not strftime: the names must not follow the user's language.
    static constexpr std::string_view kDays[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static constexpr std::string_view kMonths[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                                   "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    second = now.tv_sec;
    std::tm utc{};
    gmtime_r(&second, &utc);
    text = fmt::format("Date: {}, {:02} {} {:04} {:02}:{:02}:{:02} GMT\r\n", kDays[utc.tm_wday], utc.tm_mday,
                       kMonths[utc.tm_mon], utc.tm_year + 1900, utc.tm_hour, utc.tm_min, utc.tm_sec);
  }
  return text;
}

}  // namespace tailor
