#pragma once
/// The API over HTTP: routes, keys, request ids; what is slow goes to a few worker threads.

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "serve/api_context.h"
#include "serve/api_routes.h"
#include "serve/http_handler.h"
#include "serve/model_router.h"
#include "serve/origin_policy.h"
#include "serve/work_pool.h"

namespace tailor {

/// Who may ask what. The seam where keys come in.
class Authenticator {
 public:
  virtual ~Authenticator() = default;
  /// From a request's head. An error has status 401, 403 or 429.
  virtual ApiResult<Principal> check(const HttpHead& head, ApiScope scope) = 0;
  /// Whether whoever sends this may hear what is wrong with the server, not only that something is. Counts as nothing.
  virtual bool may_hear_reasons(const HttpHead& /*head*/) { return true; }
  /// Who was let in before, for one more request of what the key asked for then: a batch. 401: not any more.
  virtual ApiResult<Principal> background(const std::string& key_id) {
    return Principal{.key_id = key_id, .cache_salt = {}, .visit = nullptr};
  }
};

/// Lets everybody in; for servers that listen on this machine alone.
class OpenDoor final : public Authenticator {
 public:
  ApiResult<Principal> check(const HttpHead&, ApiScope) override { return Principal{}; }
};

struct ApiServerOptions {
  ApiLimits limits;
  int workers = 2;
  RequestObservers observers;             // hear of every answer once, refusals and bytes that were no request included
  const OriginPolicy* origins = nullptr;  // whose pages may use the API; null: only the server's own
  std::vector<std::string> hosts;  // that Host may name, beside addresses of this machine; empty: any (against DNS
                                   // rebinding where there are no keys)
};

/// `log` outlives the models, as the observers do. Threads: called by the HTTP server.
class ApiServer final : public HttpHandler {
 public:
  ApiServer(ModelRegistry& models, Authenticator& door, Logger& log, ApiServerOptions options);
  HttpAdmission admit(const HttpHead& head) override;
  void handle(HttpRequest&& request, std::shared_ptr<HttpResponder> responder) override;
  HttpResponse error_response(int status, std::string_view message, const std::shared_ptr<void>& context) override;
  HttpResponse refuse_connection(const std::string& remote_address) override;

  /// What comes from now on is refused with 503, but for health, version and metrics; what runs goes on.
  void drain() { draining_.store(true); }
  /// After the HTTP server has stopped: does what it handed over before. Then what services() names may end.
  void stop() { workers_.stop(); }
  ApiServices& services() { return services_; }
  const std::shared_ptr<const RequestObservers>& observers() const { return observers_; }

 private:
  struct Admitted;
  HttpResponse fail(Admitted& admitted, int status, std::string_view message);

  NamedModels by_name_;
  ApiServices services_;
  Authenticator& door_;
  ApiServerOptions options_;
  std::shared_ptr<const RequestObservers> observers_;
  std::atomic<bool> draining_{false};
  WorkPool workers_;  // last: ends first
};

}  // namespace tailor
