#include "prompt/chat_text.h"

#include <fmt/format.h>

namespace tailor {
namespace {

/// Stands for the text of turn `i` while the template is applied; the template sees nothing else.
std::string placeholder(std::size_t i) {
  return fmt::format(" \x02{}\x03 ", i);
}

bool blank(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

std::string_view stripped(std::string_view text) {
  while (!text.empty() && blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && blank(text.back())) text.remove_suffix(1);
  return text;
}

}  // namespace

Result<PromptText> render_chat(const std::string& chat_template, std::span<const ChatMessage> messages,
                               bool answer_follows) {
  std::vector<ChatMessage> marked;
  for (const ChatMessage& m : messages) marked.push_back({m.role, placeholder(marked.size())});
  TAILOR_TRY(const std::string rendered, apply_chat_template(chat_template, marked, answer_follows));
  PromptText out;
  std::string_view rest = rendered;
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const std::string mark = placeholder(i);
    const std::string_view core = stripped(mark);
    std::size_t at = rest.find(core), length = core.size();
    if (at == std::string_view::npos) {
      return Error{ErrorCode::kUnavailable,
                   fmt::format("the model's chat template leaves out or moves turn {} of the role '{}'", i + 1,
                               messages[i].role),
                   "put what it says into the turn of the user"};
    }
    const bool kept = at > 0 && rest[at - 1] == ' ' && at + length < rest.size() && rest[at + length] == ' ';
    if (kept) {
      --at;
      length += 2;
    }
    out.push_back({std::string(rest.substr(0, at)), true});
    out.push_back({kept ? messages[i].content : std::string(stripped(messages[i].content)), false});
    rest.remove_prefix(at + length);
  }
  out.push_back({std::string(rest), true});
  return out;
}

}  // namespace tailor
