#pragma once
/// One request on its way through the API, and where its handlers live.

#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/json.h"
#include "core/log.h"
#include "serve/admission.h"
#include "serve/api_result.h"
#include "serve/field_reader.h"
#include "serve/http_handler.h"
#include "serve/request_record.h"
#include "serve/served_model.h"

namespace tailor {

class KeyVisit;  // key_visit.h

/// Who asks. Without keys everybody is the same one.
struct Principal {
  std::string key_id;      // accounted to; empty: nobody in particular
  std::string cache_salt;  // beginnings of prompts are shared within it only
  int priority = 0;
  bool administers = false;         // its key has the scope admin
  std::shared_ptr<KeyVisit> visit;  // its place in the key's quotas; null: no key
};

inline ModelViewer viewer_of(const Principal& who) {
  return {who.key_id, who.key_id.empty() || who.administers};
}

struct ApiLimits {
  std::uint64_t body_bytes = std::uint64_t{8} << 20;
  std::uint64_t upload_bytes = std::uint64_t{512} << 20;
  std::chrono::minutes upload_timeout{60};
  int choices = 16;                                 // n, and prompts of a completion together
  std::size_t prompts = 128;                        // of a completion
  std::size_t texts = 2048;                         // of an embedding or a classification
  std::size_t read_bytes = std::size_t{256} << 10;  // of texts whose every word is answered: tags and questions
  std::size_t stop_texts = 16;
  std::size_t stop_bytes = 256;
  std::size_t messages = 2048;
  std::size_t logit_bias = 1024;
  int top_logprobs = 20;
  std::int64_t batches = 100;                         // of a key that have not ended
  std::int64_t jobs = 20;                             // the same
  std::int64_t stored_bytes = std::int64_t{4} << 30;  // of a key's uploaded files together
  std::chrono::seconds request_timeout{600};
  std::chrono::milliseconds stream_keep_alive{15'000};
};

class Authenticator;      // api_server.h
class BatchRunner;        // batch_runner.h
class DriftMonitor;       // drift_monitor.h
class FineTuning;         // fine_tuning.h
class Guard;              // guard.h
class Store;              // store/store.h
struct GenerationReport;  // generation_call.h
class ModelAdmin;         // model_admin.h
class ModelRouter;        // model_router.h
class ServerMetrics;      // server_metrics.h

/// What all handlers may use; lives as long as the server.
struct ApiServices {
  ModelRegistry* models = nullptr;
  ModelRouter* router = nullptr;  // never null in a server: which of them answers
  Authenticator* door = nullptr;  // never null in a server
  Guard* guard = nullptr;         // null: everything is let in and passes
  DriftMonitor* drift = nullptr;  // null: nobody compares
  ModelAdmin* admin = nullptr;    // null: models stay as they are
  ApiLimits limits;
  std::string openapi;  // the document, written
  Logger* log = nullptr;
  Store* store = nullptr;                       // null: no files and jobs
  FineTuning* tuning = nullptr;                 // null: no jobs
  BatchRunner* batches = nullptr;               // null: none are worked off
  const std::atomic<bool>* draining = nullptr;  // no new work is taken
  const ServerMetrics* metrics = nullptr;       // null: GET /metrics answers 404
  std::function<SteadyTime()> clock;            // of health; empty: the machine's
};

struct ApiCall {
  HttpRequest request;         // its body is gone once it is parsed
  std::size_t body_bytes = 0;  // that it had
  std::shared_ptr<HttpResponder> responder;
  Principal principal;
  std::string id;                           // "req-…", told in X-Request-Id
  std::map<std::string, std::string> path;  // {"id": "gpt"} of "/v1/models/{id}"
  SteadyTime arrived;
  std::vector<std::string> ignored;       // parameters that nobody read
  std::shared_ptr<RequestRecord> record;  // for metrics, log and traces; told when the answer is complete
  Logger* log = nullptr;                  // hears why an answer is an error, where its client does not

  /// Fields of every answer.
  HttpHeaders headers(const char* content_type) const;
  void answer(const Json& json, int status = 200) const;
  void answer_written(std::string json, int status = 200) const;  // JSON as text
  void answer(const ApiError& error) const;                       // and log_cause()
  void answer(ApiResult<Json> result) const;
  void log_cause(const ApiError& error) const;  // with the call's id
  void note_ignored(const FieldReader& in);     // what nobody read, for X-Ignored-Params
  /// The same of the query, of which `read` are the names that this route reads: "?name".
  void note_ignored_query(std::span<const std::string> read);

  /// Before tokens are used: takes what the body and an answer of so many tokens may need from the key's quotas, by a
  /// rough estimate. An error: answer with it.
  std::optional<ApiError> reserve(std::int64_t answer_tokens) const;
  /// What was really used, before the answer is sent. Without it an answer counts as one that used no tokens.
  void settle(std::int64_t tokens) const;
  void settle_estimated() const;  // where nobody counts tokens
  /// For its record: the model it is about, and the tokens of its texts.
  void note(const ServedModel& model, std::size_t prompt_tokens = 0) const;
};
using ApiCallPtr = std::shared_ptr<ApiCall>;

std::int64_t unix_seconds();

/// A line that tells the cause of what was answered, if it has one, with the request's id.
void log_cause(Logger& log, const RequestRecord& record, const ApiError& error);

/// A handler's own end: none, or what is answered.
using ApiFailure = std::optional<ApiError>;

/// Whether there is time for so much work, in the unit of the wait, which comes after that wait.
ApiFailure refuse_late(const ApiServices& services, const ApiCall& call, const ExpectedWait& wait,
                       std::chrono::milliseconds most_waiting, double work);

/// Before anything is tokenised: whether the call's texts can be computed in time and are paid for, by their bytes.
template <typename Text, typename Item, typename Answers>
ApiFailure admit_texts(const ApiServices& services, const ApiCallPtr& call, const Batcher<Item, Answers>& batcher,
                       const std::vector<Text>& texts) {
  const std::string& client = call->principal.key_id;
  std::size_t work = 0;
  for (const Text& text : texts) work += text_work(bytes_of(text));
  const ExpectedWait wait = batcher.expected_wait(client);
  if (auto refused = refuse_late(services, *call, wait, batcher.options().waiting_time, static_cast<double>(work)))
    return refused;
  if (const Status full = batcher.refusal(client, texts.size()); !full.has_value()) {
    call->record->refused_for = WaitRefusal::kQueue;
    return engine_error(full.error(), wait);
  }
  return call->reserve(0);
}

/// Has `batcher` compute the call's texts; `answer` hears of their rows, on its thread. Failures are answered, also a
/// wait beyond the request's time-out; a client that has gone when its turn comes is left out.
template <typename Item, typename Answers, typename Answer>
ApiFailure compute_texts(const ApiServices& services, const ApiCallPtr& call, Batcher<Item, Answers>& batcher,
                         std::vector<Item> texts, Answer answer) {
  auto done = [call, answer = std::move(answer)](Result<Batched<Answers>> rows) {
    if (!rows.has_value()) return call->answer(api_error(rows.error()));
    answer(*rows);
  };
  const std::string& client = call->principal.key_id;
  const Status status = batcher.submit(std::move(texts), std::move(done),
                                       {.client = client,
                                        .deadline = call->arrived + services.limits.request_timeout,
                                        .gone = [responder = call->responder] { return responder->gone(); }});
  if (status.has_value()) return std::nullopt;
  if (status.error().code == ErrorCode::kUnavailable) call->record->refused_for = WaitRefusal::kServer;
  return engine_error(status.error(), batcher.expected_wait(client));
}

/// "usage" where nothing is generated.
Json prompt_usage(std::size_t tokens);

/// "input": a text or several, at least one.
std::vector<std::string> input_texts(FieldReader& in, const ApiLimits& limits);

/// "metadata": a client's own texts.
void check_metadata(FieldReader& in);

/// 429: of `what` ("batches") as many have not ended as may be. `code`: the error's.
ApiError too_many_unfinished(std::string_view what, std::int64_t most, std::string code);

/// The model that a request of `who` names; its absence, or that it is another key's, is told with the names there are.
ApiResult<ServedModelPtr> named_model(const ApiServices& services, const Principal& who, FieldReader& in);

/// What a route asks of a model; `in` reads the request, of which "model" was read.
using AskModel = ApiFailure (*)(const ApiServices& services, const ApiCallPtr& call, const ServedModelPtr& model,
                                FieldReader& in);
/// How every request to a model begins: the router chooses the model, which is noted in the call's record, the guard
/// lets the request in, and where the model has a provider that one answers. Else `ask` does. Failures are answered.
void answer_by_model(const ApiServices& services, const ApiCallPtr& call, AskModel ask);

}  // namespace tailor
