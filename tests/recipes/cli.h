#pragma once
/// Runs the built programs as a user does: arguments in, exit code, output and errors out.

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "core/files.h"
#include "core/json.h"
#include "core/process.h"

namespace tailor::test {

inline std::filesystem::path program() {
  const char* build = std::getenv("TAILOR_BUILD_DIR");
  return std::filesystem::path(build != nullptr ? build : "build/release") / "bin" / "tailor";
}

struct Outcome {
  int code = -1;
  std::string out;
  std::string err;
};

inline Outcome run(std::vector<std::string> arguments,
                   std::vector<std::pair<std::string, std::string>> environment = {}) {
  const TemporaryDirectory dir;
  const auto errors = dir.path() / "err";
  arguments.insert(arguments.begin(), program().string());
  Outcome result;
  const CancelToken never;
  const auto process = run_process(
                           {.command = arguments, .environment = std::move(environment), .stderr_file = errors},
                           [&](std::string_view line) { result.out += std::string(line) + "\n"; }, never)
                           .value();
  result.code = process.signal != 0 ? -process.signal : process.exit_code;
  if (std::filesystem::exists(errors)) result.err = read_file(errors).value();
  return result;
}

inline bool contains(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

/// 24 rows for each of four labels, with words that tell them apart and some that do not.
inline std::string small_csv(int rows_per_label = 24) {
  const char* words[4][6] = {{"card", "arrive", "post", "new", "delivery", "letter"},
                             {"refund", "money", "back", "return", "purchase", "shop"},
                             {"exchange", "rate", "currency", "euro", "dollar", "convert"},
                             {"password", "login", "forgot", "reset", "code", "locked"}};
  const char* labels[4] = {"card_arrival", "refund", "exchange_rate", "passcode"};
  const char* frames[6] = {
      "hello, when will the {} and {} be there?", "I have a question about {} {}", "my {} is wrong, the {} too",
      "please tell me about the {} of the {}",    "{} {} not working today",       "is there a problem with {} or {}"};
  std::string csv = "message,intent\n";
  for (int i = 0; i < rows_per_label; ++i) {
    for (int l = 0; l < 4; ++l) {
      std::string text = frames[(i * 5 + l) % 6];
      const std::string first = words[l][i % 6], second = words[l][(i / 6 + i + 1) % 6];
      text.replace(text.find("{}"), 2, first);
      text.replace(text.find("{}"), 2, second + " " + std::to_string(i * 7 + l));
      csv += "\"" + text + "\"," + labels[l] + "\n";
    }
  }
  return csv;
}

/// 24 conversations of one question each, in JSON lines; `answer` makes the answer to question i about a thing.
template <typename Answer>
std::string small_conversations(Answer answer) {
  const char* things[] = {"flat", "garage", "garden", "kitchen", "cellar", "attic"};
  const char* asked[] = {"Is the {} free?", "How large is the {}?", "When can I see the {}?", "Who owns the {}?"};
  std::string out;
  for (const char* thing : things) {
    for (std::size_t i = 0; i < 4; ++i) {
      std::string question = asked[i];
      question.replace(question.find("{}"), 2, thing);
      const Json messages{{{"role", "user"}, {"content", question}},
                          {{"role", "assistant"}, {"content", answer(thing, i)}}};
      out += dump_json({{"messages", messages}}) + "\n";
    }
  }
  return out;
}

}  // namespace tailor::test
