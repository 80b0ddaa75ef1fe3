#pragma once
/// What became of a request, told once to metrics, log and traces. No content, no keys.

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/cancel.h"
#include "serve/http_handler.h"
#include "serve/trace_context.h"

namespace tailor {

struct ApiRoute;          // api_routes.h
struct GenerationReport;  // generation_call.h

constexpr int kClientGone = 499;  // as a status: the client went before its answer was complete

/// Why a request was turned away before it began.
enum class WaitRefusal : std::uint8_t {
  kNone,
  kKey,     // what its own key has waiting takes too long
  kServer,  // what waits takes too long
  kQueue,   // the queue's bounds of requests and tokens
};

struct RequestRecord {
  std::string id;                   // as in X-Request-Id
  std::string method;               // empty: it never became a request
  const ApiRoute* route = nullptr;  // of api_routes(); null: none has this path, or it never became a request
  std::string key_id;               // opaque; empty: nobody in particular
  std::string batch_id;             // a request of a batch, which came over no connection; empty: another one
  std::string remote_address;       // empty: over a Unix socket
  std::string server_address;       // by which the client called the server: of Host; empty: it came over no connection
  int server_port = 0;              // the same; where it named none, the scheme's; 0: nobody knows
  std::string model;                // an id of the registry, never what the client wrote; empty: none was found
  std::size_t prompt_tokens = 0;    // of vectors and labels; of texts see `generation`
  std::shared_ptr<const GenerationReport> generation;  // null: no text was asked for
  TraceContext trace;                                  // of the client, where it sent one

  int status = 0;
  WaitRefusal refused_for = WaitRefusal::kNone;
  std::uint64_t bytes_in = 0, bytes_out = 0;  // of bodies
  std::chrono::system_clock::time_point began;
  double seconds = 0;  // to the last byte handed to the connection
};

/// Threads: called from any, concurrently; must not block.
class RequestObserver {
 public:
  virtual ~RequestObserver() = default;
  virtual void on_request(const RequestRecord& record) = 0;
};
/// Outlive the server and its models, which may hold a request longer than the server does.
using RequestObservers = std::vector<RequestObserver*>;

/// One request under way. Tells the observers when the answer is complete, or, where it never is, when nobody works on
/// it any more. Threads: `record` belongs to whom the request belongs; the rest is for all.
class RequestWatch {
 public:
  RequestWatch(std::shared_ptr<const RequestObservers> observers, RequestRecord begun, SteadyTime arrived)
      : record(std::move(begun)), observers_(std::move(observers)), arrived_(arrived) {}
  RequestWatch(const RequestWatch&) = delete;
  RequestWatch& operator=(const RequestWatch&) = delete;
  ~RequestWatch();

  RequestRecord record;
  void gone();            // the client has
  void done(int status);  // the answer is complete; the first counts

  /// The same responder, watched. Dropped without an answer it sends what `if_dropped` gives.
  static std::shared_ptr<HttpResponder> watch(std::shared_ptr<HttpResponder> responder,
                                              std::shared_ptr<RequestWatch> watch,
                                              HttpResponse (*if_dropped)(const RequestRecord&));

 private:
  std::shared_ptr<const RequestObservers> observers_;
  SteadyTime arrived_;
  std::atomic<bool> told_{false};
  std::atomic<std::int64_t> gone_after_ns_{-1};
};

/// Of what has no responder: a refusal, or bytes that were no request.
void tell(const RequestObservers& observers, const RequestRecord& record);

}  // namespace tailor
