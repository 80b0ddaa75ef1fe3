#include "jinja/lexer.h"

#include <fmt/format.h>

#include <algorithm>

#include "jinja/value.h"

namespace tailor::jinja {
namespace {

bool is_space(char c) {
  return c == ' ' || (c >= '\t' && c <= '\r');
}
bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
bool is_name_start(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

void append_utf8(std::uint32_t c, std::string& out) {
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += static_cast<char>(0xC0 | c >> 6);
    out += static_cast<char>(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    out += static_cast<char>(0xE0 | c >> 12);
    out += static_cast<char>(0x80 | (c >> 6 & 0x3F));
    out += static_cast<char>(0x80 | (c & 0x3F));
  } else {
    out += static_cast<char>(0xF0 | c >> 18);
    out += static_cast<char>(0x80 | (c >> 12 & 0x3F));
    out += static_cast<char>(0x80 | (c >> 6 & 0x3F));
    out += static_cast<char>(0x80 | (c & 0x3F));
  }
}

Failure failure_at(std::size_t place, const std::string& what) {
  Failure failure(what, ErrorCode::kCorruptData);
  failure.place = place;
  return failure;
}

constexpr std::string_view kOperators[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
                                           "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(source) {}

  std::vector<Token> run() {
    while (at_ < source_.size()) text_and_tag();
    tokens_.push_back({TokenKind::kEnd, "", source_.size()});
    return std::move(tokens_);
  }

 private:
  char peek(std::size_t ahead = 0) const { return at_ + ahead < source_.size() ? source_[at_ + ahead] : '\0'; }

  void push(TokenKind kind, std::string text, std::size_t place) { tokens_.push_back({kind, std::move(text), place}); }

  /// The text up to the next tag, and the tag.
  void text_and_tag() {
    const std::size_t begin = at_;
    std::size_t tag = begin;
    while (true) {
      tag = source_.find('{', tag);
      if (tag == std::string_view::npos || tag + 1 >= source_.size()) {
        push(TokenKind::kText, std::string(source_.substr(begin)), begin);
        at_ = source_.size();
        return;
      }
      const char next = source_[tag + 1];
      if (next == '%' || next == '{' || next == '#') break;
      ++tag;
    }
    const char kind = source_[tag + 1];
    const char sign = tag + 2 < source_.size() ? source_[tag + 2] : '\0';
    const bool has_sign = sign == '-' || sign == '+';
    std::string_view text = source_.substr(begin, tag - begin);
    if (sign == '-') {
      while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
    } else if (sign != '+' && kind != '{') {
      // lstrip_blocks: blanks before a tag that stands first on its line.
      const std::size_t line = text.rfind('\n') + 1;  // npos + 1 is 0
      if ((line > 0 || line_starts_) &&
          std::all_of(text.begin() + static_cast<std::ptrdiff_t>(line), text.end(), is_space))
        text = text.substr(0, line);
    }
    if (!text.empty()) push(TokenKind::kText, std::string(text), begin);
    at_ = tag + (has_sign ? 3 : 2);
    if (kind == '#')
      comment(tag);
    else if (kind == '{')
      inside(TokenKind::kBeginOutput, TokenKind::kEndOutput, "}}", tag);
    else if (!raw(tag))
      inside(TokenKind::kBeginBlock, TokenKind::kEndBlock, "%}", tag);
    line_starts_ = at_ > 0 && source_[at_ - 1] == '\n';
  }

  /// After a tag's end: "-" takes all white space behind it, a block or comment its line break.
  void after_tag(bool minus, bool plus, bool trims_line) {
    if (minus) {
      while (is_space(peek())) ++at_;
    } else if (trims_line && !plus && peek() == '\n') {
      ++at_;
    }
  }

  void comment(std::size_t tag) {
    const std::size_t end = source_.find("#}", at_);
    if (end == std::string_view::npos) throw failure_at(tag, "a comment {# has no end");
    const char sign = end > at_ ? source_[end - 1] : '\0';
    at_ = end + 2;
    after_tag(sign == '-', sign == '+', true);
  }

  /// {% raw %}: text as it stands.
  bool raw(std::size_t tag) {
    std::size_t at = at_;
    while (at < source_.size() && is_space(source_[at])) ++at;
    if (source_.substr(at, 3) != "raw") return false;
    at += 3;
    while (at < source_.size() && is_space(source_[at])) ++at;
    const bool minus = source_.substr(at, 1) == "-";
    if (minus) ++at;
    if (source_.substr(at, 2) != "%}") return false;
    at += 2;
    at_ = at;
    if (minus) after_tag(true, false, false);
    const std::size_t begin = at_;
    for (std::size_t block = source_.find("{%", begin); block != std::string_view::npos;
         block = source_.find("{%", block + 2)) {
      std::size_t end = block + 2;
      const char sign = end < source_.size() ? source_[end] : '\0';
      if (sign == '-' || sign == '+') ++end;
      while (end < source_.size() && is_space(source_[end])) ++end;
      if (source_.substr(end, 6) != "endraw") continue;
      end += 6;
      while (end < source_.size() && is_space(source_[end])) ++end;
      const char closing = end < source_.size() ? source_[end] : '\0';
      if (closing == '-' || closing == '+') ++end;
      if (source_.substr(end, 2) != "%}") continue;
      std::string_view text = source_.substr(begin, block - begin);
      while (sign == '-' && !text.empty() && is_space(text.back())) text.remove_suffix(1);
      if (!text.empty()) push(TokenKind::kText, std::string(text), begin);
      at_ = end + 2;
      after_tag(closing == '-', closing == '+', true);
      return true;
    }
    throw failure_at(tag, "{% raw %} has no {% endraw %}");
  }

  void inside(TokenKind open, TokenKind close, std::string_view end, std::size_t tag) {
    push(open, "", tag);
    std::string brackets;  // that are open
    while (true) {
      while (is_space(peek())) ++at_;
      if (at_ >= source_.size()) throw failure_at(tag, "a tag has no end");
      if (brackets.empty()) {
        const bool sign = (peek() == '-' || (peek() == '+' && end == "%}")) && source_.substr(at_ + 1, 2) == end;
        if (sign || source_.substr(at_, 2) == end) {
          const char c = peek();
          push(close, "", at_);
          at_ += sign ? 3 : 2;
          after_tag(sign && c == '-', sign && c == '+', end == "%}");
          return;
        }
      }
      token(brackets);
    }
  }

  void token(std::string& brackets) {
    const std::size_t begin = at_;
    const char c = peek();
    if (is_name_start(c)) {
      while (is_name_start(peek()) || is_digit(peek())) ++at_;
      push(TokenKind::kName, std::string(source_.substr(begin, at_ - begin)), begin);
    } else if (is_digit(c)) {
      number();
    } else if (c == '\'' || c == '"') {
      string(c);
    } else {
      const auto* found = std::find_if(std::begin(kOperators), std::end(kOperators),
                                       [&](std::string_view op) { return source_.substr(at_).starts_with(op); });
      if (found == std::end(kOperators)) throw failure_at(begin, fmt::format("unexpected character '{}'", c));
      at_ += found->size();
      if (*found == "(" || *found == "[" || *found == "{") {
        brackets += *found == "(" ? ')' : *found == "[" ? ']' : '}';
        if (brackets.size() > 100) throw failure_at(begin, "brackets are nested deeper than 100");
      } else if (*found == ")" || *found == "]" || *found == "}") {
        if (brackets.empty() || brackets.back() != (*found)[0])
          throw failure_at(begin, fmt::format("unexpected '{}'", *found));
        brackets.pop_back();
      }
      push(TokenKind::kOperator, std::string(*found), begin);
    }
  }

  void number() {
    const std::size_t begin = at_;
    std::string digits;
    const auto take = [&] {
      while (is_digit(peek()) || (peek() == '_' && is_digit(peek(1)))) {
        if (peek() != '_') digits += peek();
        ++at_;
      }
    };
    take();
    bool real = false;
    if (peek() == '.' && is_digit(peek(1))) {
      real = true;
      digits += '.';
      ++at_;
      take();
    }
    const char sign = peek(1);
    if ((peek() == 'e' || peek() == 'E') && (is_digit(sign) || ((sign == '-' || sign == '+') && is_digit(peek(2))))) {
      real = true;
      digits += 'e';
      digits += sign;
      at_ += 2;
      take();
    }
    push(real ? TokenKind::kFloat : TokenKind::kInteger, std::move(digits), begin);
  }

  std::uint32_t hexadecimal(int count, std::size_t begin) {
    std::uint32_t value = 0;
    for (int i = 0; i < count; ++i) {
      const char c = peek();
      const int digit = is_digit(c)            ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
      if (digit < 0) throw failure_at(begin, "a string has a broken escape");
      value = value * 16 + static_cast<std::uint32_t>(digit);
      ++at_;
    }
    return value;
  }

  void string(char quote) {
    const std::size_t begin = at_++;
    std::string out;
    while (true) {
      if (at_ >= source_.size()) throw failure_at(begin, "a string has no end");
      const char c = source_[at_++];
      if (c == quote) break;
      if (c != '\\') {
        out += c;
        continue;
      }
      if (at_ >= source_.size()) throw failure_at(begin, "a string has no end");
      const char escaped = source_[at_++];
      static constexpr std::string_view kFrom = "ntrbfva\\'\"", kTo = "\n\t\r\b\f\v\a\\'\"";
      if (const std::size_t known = kFrom.find(escaped); known != std::string_view::npos) {
        out += kTo[known];
      } else if (escaped == '\n') {
        // a line break behind a backslash is none
      } else if (escaped == 'x' || escaped == 'u' || escaped == 'U') {
        std::uint32_t value = hexadecimal(escaped == 'x' ? 2 : escaped == 'u' ? 4 : 8, begin);
        if (value >= 0xD800 && value < 0xDC00 && peek() == '\\' && peek(1) == 'u') {
          at_ += 2;
          value = 0x10000 + ((value - 0xD800) << 10) + (hexadecimal(4, begin) - 0xDC00);
        }
        if (value > 0x10FFFF || (value >= 0xD800 && value < 0xE000))
          throw failure_at(begin, "a string has a broken escape");
        append_utf8(value, out);
      } else if (escaped >= '0' && escaped <= '7') {
        std::uint32_t value = static_cast<std::uint32_t>(escaped - '0');
        for (int i = 0; i < 2 && peek() >= '0' && peek() <= '7'; ++i)
          value = value * 8 + static_cast<std::uint32_t>(source_[at_++] - '0');
        append_utf8(value, out);
      } else {
        out += '\\';
        out += escaped;
      }
    }
    push(TokenKind::kString, std::move(out), begin);
  }

  std::string_view source_;
  std::size_t at_ = 0;
  bool line_starts_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) {
  return Lexer(source).run();
}

}  // namespace tailor::jinja
