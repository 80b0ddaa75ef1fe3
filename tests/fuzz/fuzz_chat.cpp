#include <algorithm>
#include <tuple>

#include "data/chat_examples.h"
#include "data/chat_json.h"
#include "fuzz.h"

namespace tailor::fuzz {

std::vector<std::string> seeds() {
  return {
      "{\"messages\":[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":[{\"type\":\"text\","
      "\"text\":"
      "\"hi\"}]},{\"role\":\"assistant\",\"content\":\"a\",\"weight\":1},{\"role\":\"user\",\"content\":\"x\"}]}"
      "\r\n\r\n",
      R"([{"conversations":[{"from":"human","value":"\u00e4\ud83d\ude00"},{"from":"gpt","value":"b"}],"system":"s"}])",
      "\xEF\xBB\xBF{\"instruction\":\"i\",\"input\":\"\",\"output\":\"o\",\"history\":[[\"u\",\"a\"]],\"id\":null}\n",
      R"({"schemaVersion":"bedrock-conversation-2024","system":[{"text":"s"}],"messages":[{"role":"user","content":)"
      R"([{"text":"u"}]},{"role":"assistant","content":[{"text":"a"}]}]})",
      "{\"prompt\":\"p\",\"completion\":\" c\"}\n{\"prompt\":\"p\",\"completion\":\" c\"}\n",
      R"({"prompt":[{"role":"user","content":"p"}],"completion":[{"role":"assistant","content":"c"}]})",
      R"({"text":"t"})",
      "instruction,input,output\n\"a, b\",,c\nd,e,f\n",
  };
}

}  // namespace tailor::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  std::ignore = tailor::first_object_is_chat(bytes);
  for (const char* name : {"fuzz.jsonl", "fuzz.csv"}) {
    const auto chat = tailor::parse_chat_examples(bytes, name, {.max_text_bytes = 4096, .max_turns = 16});
    if (!chat) continue;
    if (chat->examples.size() + chat->duplicates + chat->left_out != chat->rows) __builtin_trap();  // nothing is lost
    std::size_t total = 0;
    for (const auto& example : chat->examples) {
      if (example.turns.empty() || example.turns.size() > 16) __builtin_trap();
      if (std::none_of(example.turns.begin(), example.turns.end(), [](const auto& turn) { return turn.learn; }))
        __builtin_trap();
      for (const auto& turn : example.turns) total += turn.content.size();
    }
    if (total > 2 * size) __builtin_trap();  // two bytes stand between an instruction and its input
  }
  return 0;
}
