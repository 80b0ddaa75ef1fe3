// Tags of words, and answers that stand in a text.

#include <fmt/format.h>

#include <algorithm>

#include "serve/api_handlers.h"
#include "serve/package_answers.h"

namespace tailor {
namespace {

OffsetUnit read_offsets(FieldReader& in) {
  const auto unit = offset_unit(in.text("offsets", std::string(name_of(OffsetUnit::kCodePoints))));
  if (!unit) in.fail("offsets", "expected codepoints (as Python counts), utf16 (as JavaScript does) or utf8 (bytes)");
  return unit.value_or(OffsetUnit::kCodePoints);
}

/// Every word of such texts is computed, however long they are.
void check_bytes(FieldReader& in, const char* name, std::size_t bytes, const ApiLimits& limits) {
  if (bytes > limits.read_bytes)
    in.fail(name,
            fmt::format("the texts have {} bytes together, {} may be read for one request", bytes, limits.read_bytes));
}

void answer_list(const ApiCallPtr& call, const ServedModel& model, Json data, OffsetUnit unit, std::size_t tokens,
                 double computed_s) {
  call->settle(static_cast<std::int64_t>(tokens));
  call->answer(Json{{"object", "list"},
                    {"model", model.id},
                    {"data", std::move(data)},
                    {"offsets", name_of(unit)},
                    {"usage", prompt_usage(tokens)},
                    {"milliseconds", 1000 * computed_s}});
}

ApiFailure tag(const ApiServices& services, const ApiCallPtr& call, const ServedModelPtr& model, FieldReader& in) {
  if (!model->tags)
    return ApiError::invalid(
        "model", fmt::format("'{}' gives words no tags; its capabilities are listed by /v1/models", model->id),
        "model_not_supported");
  const bool spans = model->tags->manifest.target.spans;
  const bool words = in.boolean("words", !spans) || !spans;
  const OffsetUnit unit = read_offsets(in);
  std::vector<std::string> texts = input_texts(in, services.limits);
  std::size_t bytes = 0, tokens = 0;
  for (const std::string& text : texts) bytes += text.size();
  check_bytes(in, "input", bytes, services.limits);
  if (in.error()) return in.error();
  call->note_ignored(in);
  if (auto refused = admit_texts(services, call, *model->tags->batcher, texts)) return refused;
  for (const std::string& text : texts) tokens += model->tags->tagger.tokenizer().count(text, true);
  call->note(*model, tokens);
  std::vector<TaggedRow> rows;
  for (std::string& text : texts) rows.push_back(untagged_row(std::move(text)));
  return compute_texts(services, call, *model->tags->batcher, rows,
                       [call, model, rows, spans, words, unit, tokens](const auto& batch) {
                         Json data = Json::array();
                         for (std::size_t i = 0; i < rows.size(); ++i) {
                           Json item{{"index", i}};
                           if (spans) item["entities"] = entities_json(*model->tags, rows[i], batch.rows[i], unit);
                           if (words) item["words"] = words_json(*model->tags, rows[i], batch.rows[i], unit);
                           data.push_back(std::move(item));
                         }
                         answer_list(call, *model, std::move(data), unit, tokens, batch.computed_s);
                       });
}

QuestionRow read_question(FieldReader& in) {
  QuestionRow row;
  row.question = in.required_text("question");
  row.context = in.required_text("context");
  return row;
}

/// {"question", "context"} of the request itself, or in "input", or a list of them there.
std::vector<QuestionRow> read_questions(FieldReader& in, const ApiLimits& limits) {
  const Json* input = in.find("input");
  if (input == nullptr) return {read_question(in)};
  std::vector<QuestionRow> out;
  const auto add = [&](const Json& item, const std::string& path) {
    if (!item.is_object()) return in.fail("input", "expected {\"question\", \"context\"}, or a list of them");
    FieldReader inner(item, path);
    out.push_back(read_question(inner));
    in.join(inner);
  };
  if (!input->is_array()) {
    add(*input, "input");
  } else if (input->empty() || input->size() > limits.texts) {
    in.fail("input", fmt::format("expected 1 to {} questions, got {}", limits.texts, input->size()));
  } else {
    for (std::size_t i = 0; i < input->size() && !in.error(); ++i) add((*input)[i], fmt::format("input[{}]", i));
  }
  return out;
}

ApiFailure extract(const ApiServices& services, const ApiCallPtr& call, const ServedModelPtr& model, FieldReader& in) {
  if (!model->spans)
    return ApiError::invalid(
        "model",
        fmt::format("'{}' answers no questions from texts; its capabilities are listed by /v1/models", model->id),
        "model_not_supported");
  const OffsetUnit unit = read_offsets(in);
  std::vector<QuestionRow> rows = read_questions(in, services.limits);
  std::size_t bytes = 0, tokens = 0;
  for (const QuestionRow& row : rows) bytes += bytes_of(row);
  check_bytes(in, in.has("input") ? "input" : "context", bytes, services.limits);
  if (in.error()) return in.error();
  call->note_ignored(in);
  if (auto refused = admit_texts(services, call, *model->spans->batcher, rows)) return refused;
  for (const QuestionRow& row : rows) tokens += question_tokens(*model->spans, row);
  call->note(*model, tokens);
  return compute_texts(services, call, *model->spans->batcher, rows,
                       [call, model, rows, unit, tokens](const auto& batch) {
                         Json data = Json::array();
                         for (std::size_t i = 0; i < rows.size(); ++i)
                           data.push_back(span_json(rows[i], batch.rows[i], i, unit));
                         answer_list(call, *model, std::move(data), unit, tokens, batch.computed_s);
                       });
}

}  // namespace

void handle_tag(const ApiServices& services, const ApiCallPtr& call) {
  answer_by_model(services, call, tag);
}

void handle_extract(const ApiServices& services, const ApiCallPtr& call) {
  answer_by_model(services, call, extract);
}

}  // namespace tailor
