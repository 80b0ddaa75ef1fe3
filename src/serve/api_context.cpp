#include "serve/api_context.h"

#include <fmt/format.h>
#include <openssl/rand.h>

#include "text/edit_distance.h"

namespace tailor {

namespace {

/// A client's name of a field as a header may hold it, in a list with commas.
std::string plain(const std::string& name) {
  std::string out;
  for (const char c : name) {
    if (c > ' ' && c < 127 && c != ',' && c != '%')
      out += c;
    else
      out += fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return out;
}

}  // namespace

HttpHeaders ApiCall::headers(const char* content_type) const {
  HttpHeaders out{{"Content-Type", content_type}, {"X-Request-Id", id}, {"Cache-Control", "no-store"}};
  std::string names;
  for (const std::string& ignored_name : ignored) {
    const std::string name = plain(ignored_name);
    if (names.size() + name.size() > 1000) break;
    if (!name.empty()) names += (names.empty() ? "" : ", ") + name;
  }
  if (!names.empty()) out.add("X-Ignored-Params", names);
  return out;
}

void ApiCall::answer(const Json& json, int status) const {
  responder->send(HttpResponse{status, headers("application/json"), dump_json(json)});
}

void ApiCall::answer(const ApiError& error) const {
  HttpResponse response = error_response(error);
  response.headers.add("X-Request-Id", id);
  responder->send(std::move(response));
}

std::string random_id(const std::string& prefix) {
  constexpr char kLetters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
  unsigned char bytes[24];
  if (RAND_bytes(bytes, sizeof bytes) != 1)
    throw Exception({ErrorCode::kInternal, "no random numbers from the system", ""});
  std::string out = prefix;
  for (const unsigned char byte : bytes) out += kLetters[byte % 62];
  return out;
}

std::int64_t unix_seconds() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

ApiResult<ServedModelPtr> named_model(const ApiServices& services, FieldReader& in) {
  const std::string name = in.text("model", "", 512);
  if (in.error()) return *in.error();
  if (ServedModelPtr model = services.models->find(name)) return model;
  std::string known;
  for (const ServedModelPtr& model : services.models->list()) {
    if (known.size() > 500) {
      known += ", …";
      break;
    }
    known += (known.empty() ? "" : ", ") + model->id;
  }
  return ApiError{
      404, "invalid_request_error", "model_not_found",
      fmt::format("the model '{}' does not exist; there is {}", name.substr(0, 128), known.empty() ? "none" : known),
      "model"};
}

}  // namespace tailor
