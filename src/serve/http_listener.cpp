#include "serve/http_listener.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/asio/basic_socket_acceptor.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ip/v6_only.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cerrno>
#include <cstring>
#include <optional>

#include "serve/http_session.h"
#include "serve/http_tls.h"
#include "serve/http_transport_asio.h"

namespace tailor {
namespace {

namespace asio = boost::asio;
namespace fs = std::filesystem;
using asio::generic::stream_protocol;
using asio::ip::tcp;
using boost::system::error_code;

constexpr std::chrono::milliseconds kPause{100};  // after a failed accept: out of descriptors ends by others closing

/// To a connection that is closed then. It is short: a new connection's buffer takes it at once.
void send_refusal(int fd, HttpResponse response) {
  if (response.headers.find("Retry-After") == nullptr) response.headers.add("Retry-After", "1");
  const SerialisedHead head = serialise_head(response.status, response.headers, response.body.size());
  std::string text = head.text;
  text.append(date_field()).append("Connection: close\r\n\r\n");
  if (head.usable) text += response.body;
  send(fd, text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  char unread[4096];  // closing with bytes unread would take the answer back
  while (recv(fd, unread, sizeof(unread), MSG_DONTWAIT) > 0) {
  }
}

/// Nothing where the connection has ended already. A peer without an address must not pass for one on a Unix socket.
std::optional<HttpPeer> network_peer(const stream_protocol::socket& socket) {
  error_code error;
  const stream_protocol::endpoint remote = socket.remote_endpoint(error);
  tcp::endpoint address;
  if (error || remote.size() > address.capacity()) return std::nullopt;
  std::memcpy(address.data(), remote.data(), remote.size());
  address.resize(remote.size());
  HttpPeer peer;
  peer.address = address.address().to_string(error);
  if (error || peer.address.empty()) return std::nullopt;
  peer.key = peer.address;
  if (address.address().is_v6()) {
    const auto bytes = address.address().to_v6().to_bytes();
    peer.key = std::string("/64 ").append(reinterpret_cast<const char*>(bytes.data()), 8);
  }
  return peer;
}

Error cannot_listen(const HttpEndpoint& endpoint, const error_code& error) {
  const std::string place = to_string(endpoint);
  if (error == asio::error::address_in_use) {
    return {ErrorCode::kUnavailable,
            endpoint.unix_path.empty()
                ? fmt::format("port {} of {} is in use by another program", endpoint.port, endpoint.host)
                : fmt::format("{} is in use by another program", place),
            "stop that program or choose another port; port 0 takes any free one"};
  }
  if (error == asio::error::access_denied) {
    return {ErrorCode::kUnavailable, fmt::format("no permission to listen at {}", place),
            endpoint.unix_path.empty() ? "ports below 1024 need a privilege; choose a higher one"
                                       : "choose a directory in which you may write"};
  }
  if (error == asio::error::name_too_long || error == asio::error::invalid_argument) {
    return {ErrorCode::kInvalidArgument, fmt::format("{} is no address to listen at: {}", place, error.message()), ""};
  }
  return {ErrorCode::kUnavailable, fmt::format("cannot listen at {}: {}", place, error.message()),
          "choose an address of this machine"};
}

/// A socket file that a killed server left behind is removed; one that answers is another server's.
Status clear_unix_path(const HttpEndpoint& endpoint) {
  struct stat status {};
  const fs::path& path = endpoint.unix_path;
  if (lstat(path.c_str(), &status) != 0) return {};
  if (!S_ISSOCK(status.st_mode)) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("{} exists and is not a socket", path.string()),
                 "choose another path, or remove it yourself"};
  }
  asio::io_context io;
  asio::local::stream_protocol::socket probe(io);
  error_code error;
  probe.connect(asio::local::stream_protocol::endpoint(path.string()), error);
  if (!error || error == asio::error::try_again || error == asio::error::would_block) {
    return Error{ErrorCode::kUnavailable, fmt::format("another server is listening at {}", path.string()),
                 "stop it or choose another path"};
  }
  if (error != asio::error::connection_refused) return cannot_listen(endpoint, error);
  unlink(path.c_str());
  return {};
}

}  // namespace

struct HttpListener::Impl {
  explicit Impl(asio::io_context& io) : acceptor(io), timer(io) {}
  asio::basic_socket_acceptor<stream_protocol> acceptor;
  asio::steady_timer timer;
  ino_t socket_file = 0;  // of unix_path: what was bound here and may be removed
};

HttpListener::HttpListener(HttpEndpoint endpoint, std::shared_ptr<HttpShared> shared, std::shared_ptr<HttpLoop> loop,
                           NextLoop next)
    : endpoint_(std::move(endpoint)),
      shared_(std::move(shared)),
      loop_(std::move(loop)),
      next_(std::move(next)),
      impl_(std::make_unique<Impl>(loop_->io())) {}

HttpListener::~HttpListener() {
  close();
}

Result<std::shared_ptr<HttpListener>> HttpListener::open(const HttpEndpoint& endpoint,
                                                         std::shared_ptr<HttpShared> shared,
                                                         std::shared_ptr<HttpLoop> loop, NextLoop next) {
  std::shared_ptr<HttpListener> listener(
      new HttpListener(endpoint, std::move(shared), std::move(loop), std::move(next)));
  if (endpoint.tls) {
    TAILOR_TRY(listener->tls_, load_tls(*endpoint.tls));
  }
  TAILOR_CHECK(endpoint.unix_path.empty() ? listener->bind_network() : listener->bind_unix());
  return listener;
}

Status HttpListener::bind_network() {
  error_code error;
  tcp::resolver resolver(loop_->io());
  const auto found = resolver.resolve(endpoint_.host, std::to_string(endpoint_.port),
                                      tcp::resolver::passive | tcp::resolver::numeric_service, error);
  if (error || found.empty()) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("the host \"{}\" has no address: {}", endpoint_.host, error.message()),
                 "give an address of this machine, for example 127.0.0.1, or 0.0.0.0 for all"};
  }
  tcp::endpoint address = found.begin()->endpoint();
  for (const auto& entry : found) {
    if (entry.endpoint().address().is_v4()) {
      address = entry.endpoint();
      break;
    }
  }
  auto& acceptor = impl_->acceptor;
  acceptor.open(address.protocol(), error);
  if (!error) acceptor.set_option(asio::socket_base::reuse_address(true), error);
  if (!error && address.address().is_v6()) acceptor.set_option(asio::ip::v6_only(true), error);
  if (!error) acceptor.bind(address, error);
  if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (error) return cannot_listen(endpoint_, error);
  const stream_protocol::endpoint bound = acceptor.local_endpoint(error);
  std::memcpy(address.data(), bound.data(), bound.size());
  endpoint_.port = address.port();
  return {};
}

Status HttpListener::bind_unix() {
  TAILOR_CHECK(clear_unix_path(endpoint_));
  const std::string path = endpoint_.unix_path.string();
  if (path.size() >= sizeof(sockaddr_un::sun_path)) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("the path {} is longer than {} bytes", path, sizeof(sockaddr_un::sun_path) - 1),
                 "choose a shorter one"};
  }
  error_code error;
  const asio::local::stream_protocol::endpoint address(path);
  auto& acceptor = impl_->acceptor;
  acceptor.open(address.protocol(), error);
  // The mode before bind(), so that nobody gets in between; the mode after, since bind() takes the umask off.
  if (!error && fchmod(acceptor.native_handle(), endpoint_.unix_mode) != 0)
    error.assign(errno, boost::system::system_category());
  if (!error) acceptor.bind(address, error);
  struct stat status {};
  if (!error && lstat(path.c_str(), &status) == 0) impl_->socket_file = status.st_ino;
  if (!error && chmod(path.c_str(), endpoint_.unix_mode) != 0) error.assign(errno, boost::system::system_category());
  if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (error) return cannot_listen(endpoint_, error);
  return {};
}

void HttpListener::set_tls(TlsContext context) {
  const std::lock_guard lock(tls_mutex_);
  tls_ = std::move(context);
}

void HttpListener::start() {
  loop_->post([self = shared_from_this()] { self->accept(); });
}

void HttpListener::close() {
  error_code ignored;
  impl_->timer.cancel();
  if (!impl_->acceptor.is_open()) return;
  impl_->acceptor.close(ignored);
  struct stat status {};
  const fs::path& path = endpoint_.unix_path;
  if (impl_->socket_file != 0 && lstat(path.c_str(), &status) == 0 && status.st_ino == impl_->socket_file) {
    unlink(path.c_str());
  }
}

void HttpListener::accept() {
  if (!impl_->acceptor.is_open()) return;
  const auto loop = next_();
  impl_->acceptor.async_accept(
      loop->io(), [self = shared_from_this(), loop](const error_code& error, stream_protocol::socket socket) {
        if (error == asio::error::operation_aborted) return;
        if (!error) {
          self->take(std::move(socket), loop);
          return self->accept();
        }
        count(self->shared_->metrics->accept_errors);
        self->pause();
      });
}

/// The connection that could not be taken stays in the system's queue.
void HttpListener::pause() {
  impl_->timer.expires_after(kPause);
  impl_->timer.async_wait([self = shared_from_this()](const error_code& error) {
    if (!error) self->accept();
  });
}

void HttpListener::take(stream_protocol::socket socket, const std::shared_ptr<HttpLoop>& loop) {
  try {
    HttpPeer peer{.unix_socket = !endpoint_.unix_path.empty()};
    if (!peer.unix_socket) {
      std::optional<HttpPeer> known = network_peer(socket);
      if (!known) return;
      peer = std::move(*known);
    }
    TlsContext tls;
    {
      const std::lock_guard lock(tls_mutex_);
      tls = tls_;
    }
    if (!shared_->enter(peer)) {
      if (!tls) send_refusal(socket.native_handle(), shared_->handler.refuse_connection(peer.address));
      return;
    }
    error_code ignored;
    if (!peer.unix_socket) socket.set_option(tcp::no_delay(true), ignored);
    auto transport =
        tls ? make_tls_transport(std::move(socket), std::move(tls)) : make_plain_transport(std::move(socket));
    auto session = std::make_shared<HttpSession>(shared_, loop, std::move(transport), std::move(peer));
    loop->post([loop, session] { loop->add(session); });
  } catch (const std::exception&) {
    count(shared_->metrics->accept_errors);
  }
}

}  // namespace tailor
