import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;

/** An HTTP server that counts the requests of each connection; a pool of eight threads, and a timer. */
public final class Counter {
  public static void main(String[] args) throws Exception {
    var counts = new ConcurrentHashMap<Integer, AtomicLong>();
    var ticks = new AtomicLong();
    Executors.newScheduledThreadPool(1).scheduleAtFixedRate(ticks::incrementAndGet, 10, 10, TimeUnit.MILLISECONDS);
    var server = HttpServer.create(new InetSocketAddress(args[0], Integer.parseInt(args[1])), 64);
    server.setExecutor(Executors.newFixedThreadPool(8));
    server.createContext("/", exchange -> {
      int port = exchange.getRemoteAddress().getPort();
      long count = counts.computeIfAbsent(port, unused -> new AtomicLong()).incrementAndGet();
      byte[] body = (port + " " + count + " " + ticks.get() + "\n").getBytes(StandardCharsets.US_ASCII);
      exchange.sendResponseHeaders(200, body.length);
      try (var out = exchange.getResponseBody()) {
        out.write(body);
      }
    });
    server.start();
  }
}
