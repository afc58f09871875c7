import com.sun.management.GarbageCollectionNotificationInfo;
import com.sun.management.GcInfo;
import java.lang.management.*;
import java.util.*;
import java.util.concurrent.*;
import javax.management.*;
import javax.management.openmbean.CompositeData;

/** Pools of memory, collectors, thresholds and notifications, as the serial collector has them. */
public class Beans {
    static final Set<String> OURS = Set.of("Eden Space", "Survivor Space", "Tenured Gen", "Metaspace");
    static Object kept;

    static void part(String name, Object value) {
        System.out.println(name + ": " + value);
    }

    static String names(String[] names) {
        List<String> list = new ArrayList<>(Arrays.asList(names));
        list.retainAll(OURS);
        Collections.sort(list);
        return list.toString();
    }

    static void collect() {
        System.gc();
    }

    public static void main(String[] arguments) throws Exception {
        part("arguments", ManagementFactory.getRuntimeMXBean().getInputArguments());
        Map<String, MemoryPoolMXBean> pools = new TreeMap<>();
        for (MemoryPoolMXBean pool : ManagementFactory.getMemoryPoolMXBeans()) {
            if (OURS.contains(pool.getName())) {
                pools.put(pool.getName(), pool);
            }
        }
        for (MemoryPoolMXBean pool : pools.values()) {
            String[] managers = pool.getMemoryManagerNames();
            Arrays.sort(managers);
            MemoryUsage usage = pool.getUsage(), peak = pool.getPeakUsage();
            part(pool.getName(), pool.getType() + " " + Arrays.toString(managers) + " " + pool.isUsageThresholdSupported() + " " + pool.isCollectionUsageThresholdSupported()
                + " " + (pool.getCollectionUsage() != null) + " " + (peak.getUsed() >= usage.getUsed()) + " " + (usage.getCommitted() >= usage.getUsed()) + " " + pool.isValid());
        }
        Map<String, com.sun.management.GarbageCollectorMXBean> collectors = new TreeMap<>();
        BlockingQueue<String> told = new LinkedBlockingQueue<>();
        for (GarbageCollectorMXBean collector : ManagementFactory.getGarbageCollectorMXBeans()) {
            collectors.put(collector.getName(), (com.sun.management.GarbageCollectorMXBean) collector);
            part(collector.getName(), names(collector.getMemoryPoolNames()) + " " + collector.getObjectName());
            ((NotificationEmitter) collector).addNotificationListener((notification, back) -> {
                GarbageCollectionNotificationInfo info = GarbageCollectionNotificationInfo.from((CompositeData) notification.getUserData());
                GcInfo gc = info.getGcInfo();
                told.add(info.getGcName() + ", " + info.getGcAction() + ", " + info.getGcCause() + ", " + (gc.getId() > 0) + ", " + (gc.getEndTime() >= gc.getStartTime())
                    + ", " + names(gc.getMemoryUsageAfterGc().keySet().toArray(new String[0])) + ", " + gc.getMemoryUsageAfterGc().get("Eden Space").getUsed());
            }, null, null);
        }
        long before = collectors.get("MarkSweepCompact").getCollectionCount();
        collect();
        part("told", told.poll(30, TimeUnit.SECONDS));
        part("counted", collectors.get("MarkSweepCompact").getCollectionCount() - before);
        GcInfo last = collectors.get("MarkSweepCompact").getLastGcInfo();
        part("last", last.getMemoryUsageBeforeGc().get("Eden Space").getUsed() > 0);

        // Much of old space is used after a collection, and then no more.
        MemoryPoolMXBean old = pools.get("Tenured Gen");
        BlockingQueue<String> warnings = new LinkedBlockingQueue<>();
        ((NotificationEmitter) ManagementFactory.getMemoryMXBean()).addNotificationListener((notification, back) -> {
            MemoryNotificationInfo info = MemoryNotificationInfo.from((CompositeData) notification.getUserData());
            warnings.add(notification.getType() + " " + info.getPoolName() + " " + (info.getUsage().getUsed() > 20 << 20) + " " + info.getCount());
        }, null, null);
        old.setCollectionUsageThreshold(20 << 20);
        kept = new byte[25 << 20];
        collect();
        part("warning", warnings.poll(30, TimeUnit.SECONDS));
        part("exceeded", old.isCollectionUsageThresholdExceeded() + " " + old.getCollectionUsageThresholdCount());
        kept = null;
        collect();
        for (int i = 0; i < 500 && old.isCollectionUsageThresholdExceeded(); i++) {
            Thread.sleep(10);
        }
        part("exceeded", old.isCollectionUsageThresholdExceeded());
        old.resetPeakUsage();
        part("peak", old.getPeakUsage().getUsed() < 20 << 20);
        try {
            pools.get("Eden Space").setUsageThreshold(5);
        } catch (UnsupportedOperationException e) {
            part("refused", e.getMessage());
        }
        MBeanServer server = ManagementFactory.getPlatformMBeanServer();
        part("by name", ((CompositeData) server.getAttribute(new ObjectName("java.lang:type=MemoryPool,name=Metaspace"), "Usage")).get("max"));
        MemoryUsage rest = ManagementFactory.getMemoryMXBean().getNonHeapMemoryUsage();
        part("beside the heap", rest.getUsed() > 1 << 20);
    }
}
