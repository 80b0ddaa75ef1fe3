// Embeddings, and the order of documents by them.

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "infer/embedder.h"
#include "serve/api_handlers.h"
#include "store/random_id.h"

namespace tailor {
namespace {

std::string base64(std::span<const float> values) {
  constexpr char kLetters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const auto* bytes = reinterpret_cast<const unsigned char*>(values.data());
  const std::size_t size = values.size() * sizeof(float);
  std::string out;
  out.reserve((size + 2) / 3 * 4);
  for (std::size_t i = 0; i < size; i += 3) {
    const std::uint32_t three = static_cast<std::uint32_t>(bytes[i]) << 16 |
                                (i + 1 < size ? static_cast<std::uint32_t>(bytes[i + 1]) << 8 : 0) |
                                (i + 2 < size ? static_cast<std::uint32_t>(bytes[i + 2]) : 0);
    out += kLetters[three >> 18];
    out += kLetters[three >> 12 & 63];
    out += i + 1 < size ? kLetters[three >> 6 & 63] : '=';
    out += i + 2 < size ? kLetters[three & 63] : '=';
  }
  return out;
}

/// A text, texts, token ids, or lists of token ids.
std::vector<std::string> read_inputs(FieldReader& in, const ApiLimits& limits, const Tokenizer& tokenizer) {
  const Json* input = in.find("input");
  if (input == nullptr) {
    in.fail("input", "is missing", "missing_required_parameter");
    return {};
  }
  const auto text_of = [&](const Json& list) {
    TokenList tokens;
    for (const Json& t : list) {
      if (!t.is_number_integer() || t.get<std::int64_t>() < 0 ||
          t.get<std::uint64_t>() >= static_cast<std::uint64_t>(tokenizer.vocabulary_size())) {
        in.fail("input", fmt::format("expected token ids below {}", tokenizer.vocabulary_size()));
        return std::string();
      }
      tokens.push_back(t.get<std::int32_t>());
    }
    return tokenizer.decode(tokens);
  };
  if (input->is_array() && !input->empty() && input->front().is_number()) return {text_of(*input)};
  if (input->is_array() && !input->empty() && input->front().is_array()) {
    std::vector<std::string> out;
    if (input->size() > limits.texts) in.fail("input", fmt::format("expected at most {}, got {}", limits.texts, input->size()));
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

struct VectorModel {
  ServedModelPtr model;
  EmbeddingBackend::Ready ready;
};

ApiResult<VectorModel> vector_model(const ApiServices& services, FieldReader& in) {
  TAILOR_TRY(const ServedModelPtr model, named_model(services, in));
  if (!model->embedding)
    return ApiError::invalid("model", fmt::format("'{}' makes no vectors; its capabilities are listed by /v1/models", model->id), "model_not_supported");
  TAILOR_TRY(const EmbeddingBackend::Ready ready, model->embedding->get());
  return VectorModel{model, ready};
}

std::size_t count_tokens(const Tokenizer& tokenizer, const std::vector<std::string>& texts, int most) {
  std::size_t n = 0;
  for (const std::string& text : texts) n += std::min(tokenizer.count(text, true), static_cast<std::size_t>(most));
  return n;
}

void embeddings(const ApiServices& services, const ApiCallPtr& call, ApiResult<Json> body) {
  if (!body.has_value()) return call->answer(body.error());
  FieldReader in(*body);
  ApiResult<VectorModel> named = vector_model(services, in);
  if (!named.has_value()) return call->answer(named.error());
  const ServedModelPtr model = named->model;
  call->note(*model);
  const EmbeddingBackend::Ready ready = named->ready;
  std::vector<std::string> texts = read_inputs(in, services.limits, *ready.tokenizer);
  const std::string format = in.text("encoding_format", "float");
  if (format != "float" && format != "base64") in.fail("encoding_format", "expected float or base64");
  const auto dimensions = static_cast<std::size_t>(in.integer("dimensions", ready.dim, 1, ready.dim));
  if (in.error()) return call->answer(*in.error());
  for (const std::string& name : in.unread()) call->ignored.push_back(name);
  const std::size_t tokens = count_tokens(*ready.tokenizer, texts, ready.max_tokens);
  if (const auto refused = call->reserve(0)) return call->answer(*refused);
  call->note(*model, tokens);
  const auto done = [call, model, format, dimensions, tokens](Result<BatchedRows> rows) {
    if (!rows.has_value()) return call->answer(api_error(rows.error()));
    Json data = Json::array();
    for (std::size_t i = 0; i < rows->rows.rows; ++i) {
      const auto row = rows->rows.row(i).first(dimensions);
      std::vector<float> vector(row.begin(), row.end());
      if (dimensions < rows->rows.cols) {  // a part of a vector has another length
        const float length = std::sqrt(std::inner_product(vector.begin(), vector.end(), vector.begin(), 0.0f));
        for (float& v : vector) v = length > 0 ? v / length : 0;
      }
      data.push_back({{"object", "embedding"}, {"index", i}, {"embedding", format == "float" ? Json(vector) : Json(base64(vector))}});
    }
    call->settle(static_cast<std::int64_t>(tokens));
    call->answer(Json{{"object", "list"},
                      {"data", std::move(data)},
                      {"model", model->id},
                      {"usage", {{"prompt_tokens", tokens}, {"total_tokens", tokens}}}});
  };
  const auto gone = [responder = call->responder] { return responder->gone(); };
  if (const Status status = ready.batcher->submit(std::move(texts), done, gone); !status.has_value())
    call->answer(api_error(status.error()));
}

void rerank(const ApiServices& services, const ApiCallPtr& call, ApiResult<Json> body) {
  if (!body.has_value()) return call->answer(body.error());
  FieldReader in(*body);
  ApiResult<VectorModel> named = vector_model(services, in);
  if (!named.has_value()) return call->answer(named.error());
  const ServedModelPtr model = named->model;
  call->note(*model);
  const EmbeddingBackend::Ready ready = named->ready;
  const std::string query = in.required_text("query");
  if (!in.has("documents")) in.fail("documents", "is missing", "missing_required_parameter");
  std::vector<std::string> documents;
  if (const Json* list = in.find("documents"); list != nullptr && list->is_array() && !list->empty() && list->front().is_object()) {
    for (std::size_t i = 0; i < list->size() && !in.error(); ++i) {
      FieldReader document((*list)[i], fmt::format("documents[{}]", i));
      documents.push_back(document.required_text("text"));
      if (document.error()) in.fail(*document.error());
    }
    if (documents.size() > services.limits.texts) in.fail("documents", fmt::format("expected at most {}", services.limits.texts));
  } else {
    documents = in.texts("documents", services.limits.texts, services.limits.body_bytes);
  }
  if (!in.error() && documents.empty()) in.fail("documents", "expected at least one text");
  const auto most = static_cast<std::size_t>(in.integer("top_n", static_cast<std::int64_t>(documents.size()), 1, INT32_MAX));
  const bool with_texts = in.boolean("return_documents", false);
  if (in.error()) return call->answer(*in.error());
  for (const std::string& name : in.unread()) call->ignored.push_back(name);
  std::vector<std::string> texts{query};
  texts.insert(texts.end(), documents.begin(), documents.end());
  const std::size_t tokens = count_tokens(*ready.tokenizer, texts, ready.max_tokens);
  if (const auto refused = call->reserve(0)) return call->answer(*refused);
  call->note(*model, tokens);
  const auto done = [call, model, documents, most, with_texts, tokens](Result<BatchedRows> rows) {
    if (!rows.has_value()) return call->answer(api_error(rows.error()));
    const Matrix& m = rows->rows;
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
                      {"usage", {{"prompt_tokens", tokens}, {"total_tokens", tokens}}}});
  };
  const auto gone = [responder = call->responder] { return responder->gone(); };
  if (const Status status = ready.batcher->submit(std::move(texts), done, gone); !status.has_value())
    call->answer(api_error(status.error()));
}

}  // namespace

void handle_embeddings(const ApiServices& services, const ApiCallPtr& call) {
  embeddings(services, call, parse_body(call->request.body));
}
void handle_rerank(const ApiServices& services, const ApiCallPtr& call) {
  rerank(services, call, parse_body(call->request.body));
}

}  // namespace tailor
