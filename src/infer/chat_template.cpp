#include "infer/chat_template.h"

#include <llama.h>

#include <vector>

namespace tailor {

Result<std::string> apply_chat_template(const std::string& chat_template, std::span<const ChatMessage> messages,
                                        bool answer_follows) {
  if (chat_template.empty()) {
    return Error{ErrorCode::kInvalidArgument, "the model has no chat template",
                 "use a plain prompt, or a model that was trained to chat"};
  }
  std::vector<llama_chat_message> list;
  std::size_t bytes = 1024;
  for (const ChatMessage& m : messages) {
    list.push_back({m.role.c_str(), m.content.c_str()});
    bytes += m.role.size() + m.content.size() + 256;
  }
  std::string out(bytes, '\0');
  int n = llama_chat_apply_template(chat_template.c_str(), list.data(), list.size(), answer_follows, out.data(),
                                    static_cast<std::int32_t>(out.size()));
  if (n > static_cast<int>(out.size())) {
    out.resize(static_cast<std::size_t>(n));
    n = llama_chat_apply_template(chat_template.c_str(), list.data(), list.size(), answer_follows, out.data(),
                                  static_cast<std::int32_t>(out.size()));
  }
  if (n < 0)
    return Error{ErrorCode::kUnavailable, "the model's chat template is of an unknown kind", "use a plain prompt"};
  out.resize(static_cast<std::size_t>(n));
  return out;
}

}  // namespace tailor
