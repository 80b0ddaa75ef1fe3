#pragma once
/// A template's source as tokens, with transformers' settings: trim_blocks, lstrip_blocks, no newline at the end. Part
/// of jinja/template.h.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tailor::jinja {

enum class TokenKind : std::uint8_t {
  kText,         // between tags
  kBeginOutput,  // {{
  kEndOutput,
  kBeginBlock,  // {%
  kEndBlock,
  kName,
  kString,
  kInteger,
  kFloat,
  kOperator,
  kEnd,
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  std::string text;       // a string's value; an operator's or a number's spelling
  std::size_t place = 0;  // in the source
};

/// Throws Failure. The last token is kEnd.
std::vector<Token> tokenize(std::string_view source);

}  // namespace tailor::jinja
