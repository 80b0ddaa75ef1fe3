#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <iostream>
#include <iterator>
#include <memory>

#include "apps/tailor/verbs.h"
#include "config/value.h"
#include "core/json.h"
#include "data/chat_tools.h"
#include "recipes/generate.h"

namespace tailor {
namespace {

struct GenerateWords {
  GenerateRequest request;
  std::vector<std::string> words;  // package and texts, or texts
  std::string system, tools_file;
  std::vector<std::string> variables;
  SamplingOptions sampling;
  int max_tokens = 0;
  bool json = false;
};

Result<std::vector<std::string>> texts_of(GenerateWords& w) {
  std::vector<std::string> texts = w.words;
  if (w.request.model.empty()) {
    if (texts.empty())
      return Error{ErrorCode::kInvalidArgument, "generate needs a package, or a base model with --model",
                   "tailor generate PACKAGE \"your text\""};
    w.request.package = texts.front();
    texts.erase(texts.begin());
  }
  if (texts.empty() && isatty(STDIN_FILENO) == 0)
    texts.emplace_back(std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>());
  if (texts.empty())
    return Error{ErrorCode::kInvalidArgument, "generate needs a text, as a word or on standard input",
                 "tailor generate PACKAGE \"your text\""};
  return texts;
}

std::string line_of(const GeneratedText& answer) {
  return dump_json({{"text", answer.text},
                    {"finish_reason", answer.finish == FinishReason::kStop ? "stop" : "length"},
                    {"prompt_tokens", answer.prompt_tokens},
                    {"completion_tokens", answer.tokens.size()}}) +
         "\n";
}

bool print_now(std::string_view text) {
  return std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0;
}

/// Prints lines in their order as soon as those before them are there.
class OrderedLines {
 public:
  explicit OrderedLines(std::size_t count) : lines_(count) {}
  Status put(std::size_t i, std::string line) {
    lines_[i] = std::move(line);
    for (; next_ < lines_.size() && !lines_[next_].empty(); ++next_) {
      if (!print_now(lines_[next_])) return Error{ErrorCode::kIo, "standard output takes no more", ""};
    }
    return {};
  }

 private:
  std::vector<std::string> lines_;
  std::size_t next_ = 0;
};

}  // namespace

void add_generate(CLI::App& app, Invocation& invocation) {
  auto* verb = app.add_subcommand("generate", "answer with text, by a package that tune made or by a base model");
  auto words = std::make_shared<GenerateWords>();
  GenerateWords& w = *words;
  verb->add_option("package", w.words, "package directory (none with --model), then the texts to answer")
      ->type_name("PACKAGE TEXT");
  verb->add_option("--model", w.request.model, "a base model as it is: a name, or a GGUF file")->type_name("MODEL");
  verb->add_flag("--raw", w.request.raw, "with --model: go on with the text as it stands, without a chat template");
  verb->add_option("--system", w.system, "what the model is told before the conversation")->type_name("TEXT");
  verb->add_option("--tools", w.tools_file, "JSON list of the tools that the model may call, as in its training data")
      ->type_name("FILE");
  verb->add_option("--template-variable", w.variables,
                   "a variable of the model's chat template, such as enable_thinking=false; may be given several times")
      ->allow_extra_args(false)
      ->type_name("NAME=VALUE");
  verb->add_option("--max-tokens", w.max_tokens, "longest answer in tokens (as the package says; 256)")
      ->check(CLI::PositiveNumber)
      ->type_name("N");
  verb->add_option("--temperature", w.sampling.temperature, "0: always the likeliest token")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 100.0).description(""))
      ->type_name("T");
  verb->add_option("--top-k", w.sampling.top_k, "draw from the k likeliest tokens (all)")->type_name("K");
  verb->add_option("--top-p", w.sampling.top_p, "draw from the likeliest tokens of this probability together (1)")
      ->check(CLI::Range(0.0, 1.0).description(""))
      ->type_name("P");
  verb->add_option("--min-p", w.sampling.min_p, "no token below this share of the likeliest one's probability (0)")
      ->check(CLI::Range(0.0, 1.0).description(""))
      ->type_name("P");
  verb->add_option("--stop", w.sampling.stop, "the answer ends before this text; may be given several times")
      ->type_name("TEXT");
  verb->add_option("--seed", w.sampling.seed, "of what is drawn")->capture_default_str();
  verb->add_option("--threads", w.request.threads, "threads (all cores)");
  verb->add_flag("--json", w.json, "one JSON object an answer, when it is whole");
  verb->footer(
      "Examples:  tailor generate runs/chat/package \"Is the flat in Mill Lane still free?\"\n"
      "           tailor generate --model smollm2-135m-instruct --temperature 0.7 \"Write a haiku about rain.\"");
  verb->callback([&invocation, words] {
    invocation.run = [&invocation, words]() -> Result<int> {
      GenerateWords& given = *words;
      TAILOR_TRY(const std::vector<std::string> texts, texts_of(given));
      TAILOR_TRY(given.request.template_variables, read_name_values(given.variables, "--template-variable"));
      TAILOR_TRY(TextModel model, open_text_model(given.request, {}));
      given.sampling.max_tokens = given.max_tokens > 0 ? given.max_tokens : model.settings().max_tokens;
      if (!given.system.empty() && model.settings().form != ExampleForm::kChat)
        return Error{ErrorCode::kInvalidArgument, "--system: this model goes on with texts and holds no conversation",
                     "put it at the beginning of the text"};
      Json tools;
      if (!given.tools_file.empty()) {
        if (model.settings().form != ExampleForm::kChat)
          return Error{ErrorCode::kInvalidArgument, "--tools: this model goes on with texts and holds no conversation",
                       ""};
        TAILOR_TRY(const Json file, read_json(given.tools_file));
        auto read = read_tools(file, "tools");
        if (!read) return Error{read.error().code, given.tools_file + ": " + read.error().message, read.error().hint};
        tools = std::move(*read);
      }
      if (!model.note().empty()) fmt::print(stderr, "tailor: {}\n", model.note());
      std::vector<TextRequest> requests;
      for (const std::string& text : texts) {
        TextRequest& request = requests.emplace_back(TextRequest{.raw = text, .tools = tools});
        if (!given.system.empty()) request.messages.push_back({"system", given.system});
        request.messages.push_back({"user", text});
      }
      if (given.json) {
        OrderedLines lines(requests.size());
        const auto ended = [&](std::size_t i, const GeneratedText& answer) { return lines.put(i, line_of(answer)); };
        TAILOR_CHECK(model.answers(requests, given.sampling, ended, invocation.cancel));
        return 0;
      }
      for (const TextRequest& request : requests) {
        TAILOR_CHECK(model.answer(request, given.sampling, print_now, invocation.cancel));
        fmt::print("\n");
      }
      return 0;
    };
  });
}

}  // namespace tailor
