#include "serve/api_server.h"
#include "store/random_id.h"

#include <algorithm>
#include <charconv>

#include "serve/openapi.h"

namespace tailor {
namespace {

bool is_json(const HttpHead& head) {
  const std::string* type = head.headers.find("Content-Type");
  if (type == nullptr) return false;
  const std::string media = type->substr(0, type->find(';'));
  return same_name(media.substr(0, media.find_last_not_of(" \t") + 1), "application/json");
}

/// The client's own, where it is plain; else a new one.
std::string request_id(const HttpHead& head) {
  const std::string* given = head.headers.find("X-Request-Id");
  const auto plain = [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_' ||
           c == '.';
  };
  if (given != nullptr && !given->empty() && given->size() <= 128 && std::all_of(given->begin(), given->end(), plain))
    return *given;
  return random_id("req-", 24);
}

HttpResponse error_response_of(int status, std::string_view message) {
  ApiError error{status, status >= 500 ? "server_error" : "invalid_request_error", "", std::string(message), ""};
  if (status == 503) {
    error.type = error.code = "server_overloaded";
    error.retry_after_s = 1;
  }
  return error_response(error);
}

/// By which the client called the server; 0: nobody knows.
int server_port(const HttpHead& head) {
  int port = 0;
  std::from_chars(head.port.data(), head.port.data() + head.port.size(), port);
  if (port > 0 && port <= 65535) return port;
  return head.host.empty() || head.over_unix_socket ? 0 : head.over_tls ? 443 : 80;
}

RequestRecord begin_record(const HttpHead& head) {
  RequestRecord out;
  out.id = request_id(head);
  out.method = head.method;
  out.remote_address = head.remote_address;
  out.server_address = head.host;
  out.server_port = server_port(head);
  out.began = std::chrono::system_clock::now();
  if (const std::string* parent = head.headers.find("traceparent")) {
    if (auto trace = parse_traceparent(*parent)) out.trace = std::move(*trace);
  }
  if (const std::string* state = head.headers.find("tracestate");
      state != nullptr && !out.trace.trace_id.empty() && state->size() <= 512)
    out.trace.state = *state;
  return out;
}

HttpResponse dropped(const RequestRecord& record) {
  HttpResponse response = error_response_of(500, "the request was dropped inside the server");
  response.headers.add("X-Request-Id", record.id);
  return response;
}

}  // namespace

struct ApiServer::Admitted {
  RequestRecord record;  // as far as the head tells
  RouteMatch match;
  Principal principal;
  SteadyTime arrived;
  std::string origin;  // of a page that may read the answer; empty: none

  void begin(const HttpHead& head) {
    record = begin_record(head);
    arrived = std::chrono::steady_clock::now();
  }
  /// It ends here, with `response`.
  void end(HttpResponse& response) {
    response.headers.add("X-Request-Id", record.id);
    if (!origin.empty()) let_read(response.headers, origin);
    record.status = response.status;
    record.bytes_out = response.body.size();
    record.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - arrived).count();
  }
};

ApiServer::ApiServer(ModelRegistry& models, Authenticator& door, Logger& log, ApiServerOptions options)
    : by_name_(models),
      door_(door),
      options_(std::move(options)),
      observers_(std::make_shared<const RequestObservers>(options_.observers)),
      workers_(options_.workers) {
  services_.models = &models;
  services_.router = &by_name_;
  services_.door = &door_;
  services_.limits = options_.limits;
  services_.openapi = dump_json(openapi_document(options_.limits));
  services_.log = &log;
  services_.draining = &draining_;
}

HttpAdmission ApiServer::admit(const HttpHead& head) {
  auto admitted = std::make_shared<Admitted>();
  admitted->begin(head);
  admitted->match = find_route(head.method, head.path);
  admitted->record.route = admitted->match.route;
  admitted->origin = allowed_origin(options_.origins, head);
  const auto refuse = [&](const ApiError& error) {
    HttpAdmission out;
    out.refusal = tailor::error_response(error);
    admitted->end(*out.refusal);
    log_cause(*services_.log, admitted->record, error);
    tell(*observers_, admitted->record);
    return out;
  };
  if (!options_.hosts.empty() &&
      std::find(options_.hosts.begin(), options_.hosts.end(), head.host) == options_.hosts.end())
    return refuse(
        {403, "permission_error", "host_not_allowed", "this server does not answer for that host name", "", 0});
  // Before the key, which a page does not have: it learns nothing either.
  if (changes_state(head.method) && admitted->origin.empty() && is_of_other_origin(head))
    return refuse({403, "permission_error", "origin_not_allowed",
                   "a page of another origin may not ask this; allowed_origins of serve.yaml lets pages in", "", 0});
  if (!admitted->origin.empty() && is_preflight(head)) {
    HttpAdmission out;
    out.refusal = preflight_answer(admitted->origin);
    out.refusal->headers.add("X-Request-Id", admitted->record.id);
    return out;
  }
  const ApiRoute* route = admitted->match.route;
  // A key is asked for before anything is told, also of paths that do not exist.
  const ApiScope scope = route == nullptr ? ApiScope::kInfer : route->scope;
  if (scope != ApiScope::kNone) {
    ApiResult<Principal> principal = door_.check(head, scope);
    if (!principal.has_value()) return refuse(principal.error());
    admitted->principal = std::move(*principal);
    admitted->record.key_id = admitted->principal.key_id;
  }
  if (route == nullptr) {
    if (admitted->match.other_methods.empty())
      return refuse({404, "invalid_request_error", "unknown_url",
                     "there is nothing at this path; GET /openapi.json lists what there is", ""});
    HttpAdmission out = refuse({405, "invalid_request_error", "method_not_allowed",
                                "this path is asked with " + admitted->match.other_methods, ""});
    out.refusal->headers.add("Allow", admitted->match.other_methods);
    return out;
  }
  const bool post = head.method == "POST";
  if (draining_.load() && !route->while_draining)
    return refuse({503, "server_overloaded", "shutting_down", "the server is shutting down", "", 2});
  if (route->needs_store && services_.store == nullptr)
    return refuse({501, "not_supported_error", "no_store",
                   "this server keeps no files and jobs: it was started without a data directory", ""});
  const bool has_body =
      head.content_length ? *head.content_length > 0 : head.headers.find("Transfer-Encoding") != nullptr;
  HttpAdmission out;
  if (route->sink != nullptr) {
    auto sink = route->sink(services_, head, admitted->principal);
    if (!sink.has_value()) return refuse(sink.error());
    out.sink = std::move(*sink);
    out.max_body_bytes = services_.limits.upload_bytes;
    out.body_timeout = services_.limits.upload_timeout;
    out.context = std::move(admitted);
    return out;
  }
  if (post && has_body && !is_json(head))
    return refuse(
        {415, "invalid_request_error", "unsupported_media_type", "expected Content-Type: application/json", ""});
  out.max_body_bytes = post ? services_.limits.body_bytes : 0;
  out.context = std::move(admitted);
  return out;
}

void ApiServer::handle(HttpRequest&& request, std::shared_ptr<HttpResponder> responder) {
  const auto admitted = std::static_pointer_cast<Admitted>(request.context);
  auto call = std::make_shared<ApiCall>();
  call->id = admitted->record.id;
  const auto watch = std::make_shared<RequestWatch>(observers_, std::move(admitted->record), admitted->arrived);
  watch->record.bytes_in = call->body_bytes = request.body.size();
  call->record = std::shared_ptr<RequestRecord>(watch, &watch->record);
  call->log = services_.log;
  call->request = std::move(request);
  if (!admitted->origin.empty()) responder = let_read(std::move(responder), admitted->origin);
  call->responder = RequestWatch::watch(std::move(responder), watch, dropped);
  call->principal = std::move(admitted->principal);
  call->path = std::move(admitted->match.path);
  call->arrived = admitted->arrived;
  const ApiRoute& route = *admitted->match.route;
  if (!call->request.head.query.empty()) call->note_ignored_query(openapi_query(route.method, route.path));
  const auto run = [this, call, &route] {
    try {
      route.handle(services_, call);
    } catch (const std::exception& e) {
      call->answer(api_error(Error{ErrorCode::kInternal, e.what(), ""}));
    }
  };
  if (route.quick)
    run();
  else
    workers_.add(run);
}

HttpResponse ApiServer::error_response(int status, std::string_view message, const std::shared_ptr<void>& context) {
  const auto admitted = std::static_pointer_cast<Admitted>(context);
  if (admitted) return fail(*admitted, status, message);
  Admitted nobody;
  nobody.begin(HttpHead());
  return fail(nobody, status, message);
}

HttpResponse ApiServer::refuse_connection(const std::string& remote_address) {
  HttpHead head;  // none came
  head.remote_address = remote_address;
  Admitted nobody;
  nobody.begin(head);
  return fail(nobody, 503, kTooManyConnections);
}

HttpResponse ApiServer::fail(Admitted& admitted, int status, std::string_view message) {
  HttpResponse response = error_response_of(status, without_directories(message));  // it may be a disk's
  admitted.end(response);
  tell(*observers_, admitted.record);
  return response;
}

}  // namespace tailor
