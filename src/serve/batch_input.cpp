#include "serve/batch_input.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>
#include <unordered_map>

#include "serve/field_reader.h"

namespace tailor {
namespace {

constexpr std::array<std::string_view, 4> kEndpoints = {"/v1/chat/completions", "/v1/completions", "/v1/embeddings",
                                                        "/v1/classify"};
constexpr std::size_t kTextsPerAnswer = 16;

std::size_t length_of(const Json& body, const char* name) {
  const auto found = body.find(name);
  const bool list = found != body.end() && found->is_array() && !found->empty() && !found->front().is_number();
  return list ? found->size() : 1;
}

std::size_t answers_of(std::string_view endpoint, const Json& body) {
  if (endpoint == "/v1/embeddings" || endpoint == "/v1/classify")
    return (length_of(body, "input") + kTextsPerAnswer - 1) / kTextsPerAnswer;
  const auto n = body.find("n");
  const bool several = n != body.end() && n->is_number_unsigned();
  return length_of(body, "prompt") * std::clamp<std::size_t>(several ? n->get<std::size_t>() : 1, 1, 1024);
}

Json error_object(std::string_view code, std::optional<std::size_t> line, const std::string& message,
                  const std::string& param) {
  return {{"code", code},
          {"line", line ? Json(*line) : Json()},
          {"message", message},
          {"param", param.empty() ? Json() : Json(param)}};
}

}  // namespace

bool is_batch_endpoint(std::string_view path) {
  return std::find(kEndpoints.begin(), kEndpoints.end(), path) != kEndpoints.end();
}

Result<BatchInput> BatchInput::read(const std::filesystem::path& path, std::string_view endpoint,
                                    const BatchInputLimits& limits,
                                    const std::function<bool(const std::string&)>& has_model) {
  TAILOR_TRY(MappedFile file, MappedFile::open(path));
  BatchInput out(std::move(file));
  std::string_view text = out.file_.bytes();
  constexpr std::string_view kMark = "\xEF\xBB\xBF";
  const std::size_t begin = text.starts_with(kMark) ? kMark.size() : 0;

  std::size_t wrong = 0, number = 0;
  const auto fail = [&](std::string_view code, const std::string& message, const std::string& param = {}) {
    if (++wrong <= limits.errors) out.errors_.push_back(error_object(code, number, message, param));
  };
  std::unordered_map<std::string, std::size_t> seen;  // ids and their lines
  bool one_model = true;

  const auto read_line = [&](std::string_view line, std::size_t offset) {
    if (line.size() > limits.line_bytes) {
      const std::string message = fmt::format("expected at most {} bytes, got {}", limits.line_bytes, line.size());
      return fail("line_too_long", message);
    }
    ApiResult<Json> parsed = parse_body(line);
    if (!parsed.has_value()) return fail("invalid_json_line", parsed.error().message);
    FieldReader in(*parsed);
    const std::string id = in.required_text("custom_id");
    if (!in.error() && (id.empty() || id.size() > limits.custom_id_bytes))
      in.fail("custom_id", fmt::format("expected 1 to {} bytes", limits.custom_id_bytes));
    const std::string method = in.required_text("method"), url = in.required_text("url");
    if (!in.error() && method != "POST") in.fail("method", "expected POST", "invalid_method");
    if (!in.error() && url != endpoint)
      in.fail("url", fmt::format("expected the batch's endpoint {}, got {}", endpoint, url.substr(0, 128)),
              "invalid_url");
    const Json* body = in.find("body");
    if (!in.error() && body == nullptr) in.fail("body", "is missing", "missing_required_parameter");
    if (!in.error() && !body->is_object()) in.fail("body", "expected an object");
    std::string model;
    if (!in.error()) {
      FieldReader inner(*body, "body");
      model = inner.text("model", "", 512);
      if (inner.error()) in.fail(*inner.error());
      if (!in.error() && has_model && !has_model(model))
        in.fail(ApiError::invalid("body.model", fmt::format("the model '{}' does not exist", model.substr(0, 128)),
                                  "model_not_found"));
    }
    if (const auto& error = in.error())
      return fail(error->code.empty() ? "invalid_value" : error->code, error->message, error->param);
    if (const auto [before, first] = seen.emplace(id, number); !first) {
      const std::string message =
          fmt::format("'{}' is the custom_id of line {} too", id.substr(0, 128), before->second);
      return fail("duplicate_custom_id", message, "custom_id");
    }
    if (out.lines_.empty()) out.model_ = model;
    one_model = one_model && model == out.model_;
    out.lines_.push_back({id, offset, line.size(), answers_of(endpoint, *body)});
  };

  for (std::size_t at = begin; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    std::string_view line = text.substr(at, end - at);
    const std::size_t offset = at;
    at = end + 1;
    ++number;
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.find_first_not_of(" \t") == std::string_view::npos) continue;
    if (out.lines_.size() + wrong >= limits.lines) {
      fail("too_many_lines", fmt::format("expected at most {} requests", limits.lines));
      break;
    }
    read_line(line, offset);
  }
  if (wrong > limits.errors) {
    const std::string message = fmt::format("{} lines more are wrong", wrong - limits.errors);
    out.errors_.push_back(error_object("more_errors", std::nullopt, message, ""));
  }
  if (out.lines_.empty() && wrong == 0)
    out.errors_.push_back(error_object("empty_file", std::nullopt, "the file holds no requests", ""));
  if (!one_model) out.model_.clear();
  return out;
}

Json BatchInput::body(std::size_t line) const {
  const Line& at = lines_[line];
  // Was read before; a file that somebody changed under us gives an empty body, which its handler refuses.
  ApiResult<Json> parsed = parse_body(file_.bytes().substr(at.offset, at.bytes));
  if (!parsed.has_value() || !parsed->contains("body")) return Json::object();
  return std::move((*parsed)["body"]);
}

}  // namespace tailor
