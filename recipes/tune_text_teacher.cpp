#include "recipes/tune_text_teacher.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "core/files.h"
#include "fit/paths.h"
#include "fit/ready_model.h"
#include "fit/text_model.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;

struct Answer {
  std::string text;
  bool ended = false;
};

Result<TextModel> open_teacher(const TuneOptions& options, ExampleForm form, int threads, RunUi& ui,
                               const ProgressFn& progress) {
  std::error_code ignored;
  const std::string name = options.teacher.string();
  if (fs::exists(options.teacher / "manifest.json", ignored)) {
    TAILOR_TRY(TextModel teacher, TextModel::load_package(options.teacher, threads));
    if (teacher.settings().form != form)
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("the teacher {} was tuned on {}, the data holds {}", name,
                               form == ExampleForm::kChat ? "raw prompts" : "conversations",
                               form == ExampleForm::kChat ? "conversations" : "raw prompts"),
                   "take a teacher that is asked in the same way"};
    return teacher;
  }
  TAILOR_TRY(const ModelInfo model, resolve_model(name, default_models_directory()));
  if (model.kind != ModelKind::kDecoder)
    return Error{ErrorCode::kInvalidArgument, fmt::format("the teacher {} is an encoder: it does not write", name),
                 "name a package of `tailor tune` that answers with text, or a decoder"};
  ui.stage(fmt::format("making {} ready", model.id));
  TAILOR_TRY(const ReadyModel ready, ready_model(model, ModelUse::kServing, progress));
  return TextModel::load(ready.gguf, {}, {.form = form}, threads);
}

/// What an interrupted run has answered, by example. The last line may be cut: the file is written anew without it.
Result<std::map<std::size_t, Answer>> earlier_answers(const fs::path& file, std::size_t examples) {
  std::map<std::size_t, Answer> found;
  std::error_code ignored;
  if (!fs::exists(file, ignored)) return found;
  TAILOR_TRY(const std::vector<Json> lines, read_jsonl(file, /*drop_partial_last=*/true));
  std::string whole;
  for (const Json& line : lines) {
    const Json example = line.is_object() ? line.value("example", Json()) : Json();
    const Json answer = line.is_object() ? line.value("answer", Json()) : Json();
    const Json ended = line.is_object() ? line.value("ended", Json()) : Json();
    if (!example.is_number_unsigned() || example.get<std::size_t>() >= examples || !answer.is_string() ||
        !ended.is_boolean())
      return Error{ErrorCode::kCorruptData, file.string() + " holds a line that is no answer",
                   "remove it: the teacher is asked again"};
    found[example.get<std::size_t>()] = {answer.get<std::string>(), ended.get<bool>()};
    whole += dump_json(line) + "\n";
  }
  TAILOR_CHECK(write_file_atomic(file, whole));
  return found;
}

/// The teacher's answer in the place of the last learnt turn, which alone is learnt.
void replace_answer(ChatExample& example, const std::string& text) {
  std::size_t last = example.turns.size() - 1;
  while (last > 0 && !example.turns[last].learn) --last;
  example.turns.resize(last + 1);
  for (ChatTurn& turn : example.turns) turn.learn = false;
  example.turns[last].content = text;
  example.turns[last].learn = true;
}

bool blank(const std::string& text) {
  return text.find_first_not_of(" \t\r\n") == std::string::npos;
}

}  // namespace

Result<Json> teach_texts(const TuneOptions& options, PreparedChat& data, int threads, RunUi& ui,
                         const ProgressFn& progress, const CancelToken& cancel) {
  if (data.form == ExampleForm::kText)
    return Error{ErrorCode::kInvalidArgument, "plain texts ask nothing that a teacher could answer",
                 "give conversations, instructions, or prompts with completions"};
  const fs::path file = options.out / kTeacherAnswers;
  TAILOR_TRY(auto answers, earlier_answers(file, data.examples.size()));
  std::vector<std::size_t> asked = data.of(TokenPart::kTrain);
  const auto validation = data.of(TokenPart::kValidation);
  asked.insert(asked.end(), validation.begin(), validation.end());
  const bool all_there = std::all_of(asked.begin(), asked.end(), [&](std::size_t i) { return answers.contains(i); });
  if (!all_there) {
    TAILOR_TRY(TextModel teacher, open_teacher(options, data.form, threads, ui, progress));
    ui.stage("asking the teacher");
    std::vector<std::size_t> left;
    std::vector<TextRequest> requests;
    for (const std::size_t i : asked) {
      if (answers.contains(i)) continue;
      left.push_back(i);
      requests.push_back(last_request(data.examples[i]));
    }
    const auto keep = [&](std::size_t k, const GeneratedText& text) -> Status {
      const std::size_t i = left[k];
      answers[i] = {text.text, text.finish == FinishReason::kStop};
      progress({"asking the teacher", static_cast<double>(answers.size()), static_cast<double>(asked.size())});
      return append_line(file, dump_json({{"example", i},
                                          {"line", data.examples[i].line},
                                          {"answer", answers[i].text},
                                          {"ended", answers[i].ended}}));
    };
    TAILOR_CHECK(teacher.answers(requests, {.max_tokens = options.teacher_tokens}, keep, cancel));
  }
  std::size_t empty = 0, endless = 0, same = 0;
  std::vector<ChatExample> examples;
  std::vector<TokenPart> parts;
  for (std::size_t i = 0; i < data.examples.size(); ++i) {
    ChatExample example = data.examples[i];
    if (data.parts[i] != TokenPart::kTest) {
      const Answer& answer = answers.at(i);
      if (blank(answer.text) || !answer.ended) {
        ++(blank(answer.text) ? empty : endless);
        continue;
      }
      same += last_question(example).answer == answer.text ? 1 : 0;
      replace_answer(example, answer.text);
    }
    examples.push_back(std::move(example));
    parts.push_back(data.parts[i]);
  }
  data.examples = std::move(examples);
  data.parts = std::move(parts);
  if (empty + endless > 0)
    ui.warning(
        fmt::format("{} answer(s) of the teacher are empty and {} came to no end within {} tokens: nothing is "
                    "learnt from them",
                    empty, endless, options.teacher_tokens));
  if (data.of(TokenPart::kTrain).empty())
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("the teacher {} gave no answer to learn from", options.teacher.string()),
                 "try it with `tailor generate`"};
  return Json{{"source", options.teacher.string()},
              {"asked", asked.size()},
              {"empty", empty},
              {"without_end", endless},
              {"equal_to_data", same}};
}

}  // namespace tailor
