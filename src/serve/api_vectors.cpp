// Embeddings, and the order of documents by them.

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/hash.h"
#include "infer/embedder.h"
#include "serve/api_handlers.h"
#include "store/random_id.h"

namespace tailor {
namespace {

/// A text, texts, token ids, or lists of token ids.
std::vector<std::string> read_inputs(FieldReader& in, const ApiLimits& limits, const Tokenizer& tokenizer) {
  const Json* input = in.find("input");
  if (input == nullptr) {
    in.fail("input", "is missing", "missing_required_parameter");
    return {};
  }
  const auto text_of = [&](const Json& list) {
    return tokenizer.decode(in.token_ids("input", list, static_cast<std::int64_t>(tokenizer.vocabulary_size())));
  };
  if (input->is_array() && !input->empty() && input->front().is_number()) return {text_of(*input)};
  if (input->is_array() && !input->empty() && input->front().is_array()) {
    std::vector<std::string> out;
    if (input->size() > limits.texts)
      in.fail("input", fmt::format("expected at most {}, got {}", limits.texts, input->size()));
    for (const Json& list : *input) {
      if (!list.is_array()) in.fail("input", "expected a string, strings, token ids or lists of token ids");
      if (in.error()) return out;
      out.push_back(text_of(list));
    }
    return out;
  }
  std::vector<std::string> out = in.texts("input", limits.texts, limits.body_bytes);
  if (!in.error() && out.empty()) in.fail("input", "expected at least one text");
  return out;
}

ApiResult<EmbeddingBackend::Ready> vectors_of(const ServedModel& model) {
  if (!model.embedding)
    return ApiError::invalid("model",
                             fmt::format("'{}' makes no vectors; its capabilities are listed by /v1/models", model.id),
                             "model_not_supported");
  TAILOR_TRY(const EmbeddingBackend::Ready ready, model.embedding->get());
  return ready;
}

std::size_t count_tokens(const Tokenizer& tokenizer, const std::vector<std::string>& texts, int most) {
  std::size_t n = 0;
  for (const std::string& text : texts) n += std::min(tokenizer.count(text, true), static_cast<std::size_t>(most));
  return n;
}

/// Whether the request wants what is too long to be cut, where the model stops reading: vLLM's truncate_prompt_tokens.
bool read_cutting(FieldReader& in, int window) {
  if (!in.has("truncate_prompt_tokens")) return false;
  const std::int64_t most = in.integer("truncate_prompt_tokens", -1, -1, window);
  if (!in.error() && most != -1 && most != window)
    in.fail("truncate_prompt_tokens",
            fmt::format("expected -1 or {}: texts are cut where the model stops reading", window),
            "unsupported_parameter");
  return true;
}

ApiResult<std::size_t> count_whole_tokens(const Tokenizer& tokenizer, const std::vector<std::string>& texts, int most) {
  std::size_t all = 0;
  for (std::size_t i = 0; i < texts.size(); ++i) {
    const std::size_t n = tokenizer.count(texts[i], true);
    if (n > static_cast<std::size_t>(most))
      return ApiError::invalid(
          "input",
          fmt::format("the model reads {} tokens, and text {} of 'input' has {}: shorten it, or have what is too long "
                      "cut with \"truncate_prompt_tokens\": -1",
                      most, i + 1, n),
          "context_length_exceeded");
    all += n;
  }
  return all;
}

ApiFailure embeddings(const ApiServices& services, const ApiCallPtr& call, const ServedModelPtr& model,
                      FieldReader& in) {
  TAILOR_TRY(const EmbeddingBackend::Ready ready, vectors_of(*model));
  std::vector<std::string> texts = read_inputs(in, services.limits, *ready.tokenizer);
  const std::string format = in.text("encoding_format", "float");
  if (format != "float" && format != "base64") in.fail("encoding_format", "expected float or base64");
  const auto dimensions = static_cast<std::size_t>(in.integer("dimensions", ready.dim, 1, ready.dim));
  const bool cut = read_cutting(in, ready.max_tokens);
  if (in.error()) return in.error();
  call->note_ignored(in);
  if (auto refused = admit_texts(services, call, *ready.batcher, texts)) return refused;
  std::size_t tokens = 0;
  if (cut) {
    tokens = count_tokens(*ready.tokenizer, texts, ready.max_tokens);
  } else {
    TAILOR_TRY(tokens, count_whole_tokens(*ready.tokenizer, texts, ready.max_tokens));
  }
  call->note(*model, tokens);
  return compute_texts(
      services, call, *ready.batcher, std::move(texts),
      [call, model, format, dimensions, tokens](const BatchedRows& batch) {
        Json data = Json::array();
        for (std::size_t i = 0; i < batch.rows.rows; ++i) {
          const auto row = batch.rows.row(i).first(dimensions);
          std::vector<float> vector(row.begin(), row.end());
          if (dimensions < batch.rows.cols) {  // a part of a vector has another length
            const float length = std::sqrt(std::inner_product(vector.begin(), vector.end(), vector.begin(), 0.0f));
            for (float& v : vector) v = length > 0 ? v / length : 0;
          }
          data.push_back(
              {{"object", "embedding"},
               {"index", i},
               {"embedding", format == "float" ? Json(vector)
                                               : Json(to_base64({reinterpret_cast<const char*>(vector.data()),
                                                                 vector.size() * sizeof(float)}))}});
        }
        call->settle(static_cast<std::int64_t>(tokens));
        call->answer(
            Json{{"object", "list"}, {"data", std::move(data)}, {"model", model->id}, {"usage", prompt_usage(tokens)}});
      });
}

ApiFailure rerank(const ApiServices& services, const ApiCallPtr& call, const ServedModelPtr& model, FieldReader& in) {
  TAILOR_TRY(const EmbeddingBackend::Ready ready, vectors_of(*model));
  const std::string query = in.required_text("query");
  if (!in.has("documents")) in.fail("documents", "is missing", "missing_required_parameter");
  std::vector<std::string> documents;
  if (const Json* list = in.find("documents");
      list != nullptr && list->is_array() && !list->empty() && list->front().is_object()) {
    for (std::size_t i = 0; i < list->size() && !in.error(); ++i) {
      FieldReader document((*list)[i], fmt::format("documents[{}]", i));
      documents.push_back(document.required_text("text"));
      in.join(document);
    }
    if (documents.size() > services.limits.texts)
      in.fail("documents", fmt::format("expected at most {}", services.limits.texts));
  } else {
    documents = in.texts("documents", services.limits.texts, services.limits.body_bytes);
  }
  if (!in.error() && documents.empty()) in.fail("documents", "expected at least one text");
  const auto most =
      static_cast<std::size_t>(in.integer("top_n", static_cast<std::int64_t>(documents.size()), 1, INT32_MAX));
  const bool with_texts = in.boolean("return_documents", false);
  if (in.error()) return in.error();
  call->note_ignored(in);
  std::vector<std::string> texts{query};
  texts.insert(texts.end(), documents.begin(), documents.end());
  if (auto refused = admit_texts(services, call, *ready.batcher, texts)) return refused;
  const std::size_t tokens = count_tokens(*ready.tokenizer, texts, ready.max_tokens);
  call->note(*model, tokens);
  return compute_texts(
      services, call, *ready.batcher, std::move(texts),
      [call, model, documents, most, with_texts, tokens](const BatchedRows& batch) {
        const Matrix& m = batch.rows;
        std::vector<std::pair<float, std::size_t>> order;
        for (std::size_t i = 1; i < m.rows; ++i)
          order.emplace_back(std::inner_product(m.row(0).begin(), m.row(0).end(), m.row(i).begin(), 0.0f), i - 1);
        std::stable_sort(order.begin(), order.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
        Json results = Json::array();
        for (std::size_t i = 0; i < std::min(most, order.size()); ++i) {
          Json item{{"index", order[i].second}, {"relevance_score", order[i].first}};
          if (with_texts) item["document"] = {{"text", documents[order[i].second]}};
          results.push_back(std::move(item));
        }
        call->settle(static_cast<std::int64_t>(tokens));
        call->answer(Json{{"id", random_id("rerank-", 24)},
                          {"object", "list"},
                          {"model", model->id},
                          {"results", std::move(results)},
                          {"usage", prompt_usage(tokens)}});
      });
}

}  // namespace

void handle_embeddings(const ApiServices& services, const ApiCallPtr& call) {
  answer_by_model(services, call, embeddings);
}
void handle_rerank(const ApiServices& services, const ApiCallPtr& call) {
  answer_by_model(services, call, rerank);
}

}  // namespace tailor
