import java.awt.BasicStroke;
import java.awt.Color;
import java.awt.Font;
import java.awt.GradientPaint;
import java.awt.Graphics2D;
import java.awt.GraphicsEnvironment;
import java.awt.HeadlessException;
import java.awt.Image;
import java.awt.RenderingHints;
import java.awt.color.ColorSpace;
import java.awt.geom.AffineTransform;
import java.awt.geom.Ellipse2D;
import java.awt.geom.Line2D;
import java.awt.image.AffineTransformOp;
import java.awt.image.BufferedImage;
import java.awt.image.ColorConvertOp;
import java.awt.image.ConvolveOp;
import java.awt.image.Kernel;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.util.Arrays;
import javax.imageio.ImageIO;
import javax.swing.JFrame;
import javax.swing.JLabel;
import javax.swing.JPanel;

/** Pictures, fonts, colours and components where there is no screen. */
public class Drawing {
    private static void show(String what, BufferedImage image) {
        int[] pixels = image.getRGB(0, 0, image.getWidth(), image.getHeight(), null, 0, image.getWidth());
        System.out.println(what + " " + image.getWidth() + "x" + image.getHeight() + " " + Integer.toHexString(Arrays.hashCode(pixels)));
    }

    private static BufferedImage coded(String format, BufferedImage image) throws Exception {
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        System.out.println(format + " " + ImageIO.write(image, format, out));
        return ImageIO.read(new ByteArrayInputStream(out.toByteArray()));
    }

    public static void main(String[] arguments) throws Exception {
        BufferedImage image = new BufferedImage(200, 120, BufferedImage.TYPE_INT_ARGB);
        Graphics2D graphics = image.createGraphics();
        graphics.setRenderingHint(RenderingHints.KEY_ANTIALIASING, RenderingHints.VALUE_ANTIALIAS_ON);
        graphics.setPaint(new GradientPaint(0, 0, Color.RED, 200, 120, Color.BLUE));
        graphics.fill(new Ellipse2D.Double(10, 10, 180, 100));
        graphics.setColor(Color.WHITE);
        graphics.setStroke(new BasicStroke(3));
        graphics.draw(new Line2D.Float(0, 0, 200, 120));
        show("shapes", image);
        graphics.setFont(new Font("DejaVu Sans", Font.BOLD, 20));
        graphics.drawString("Hello, \u00e4\u03a9", 30, 60);
        System.out.println("width " + graphics.getFontMetrics().stringWidth("Hello, \u00e4\u03a9"));
        graphics.dispose();
        show("text", image);
        show("png", coded("png", image));
        BufferedImage opaque = new BufferedImage(200, 120, BufferedImage.TYPE_INT_RGB);
        opaque.createGraphics().drawImage(image, 0, 0, null);
        show("jpg", coded("jpg", opaque));
        show("gif", coded("gif", opaque));
        show("gray", new ColorConvertOp(ColorSpace.getInstance(ColorSpace.CS_GRAY), null).filter(opaque, null));
        BufferedImage small = new BufferedImage(50, 30, BufferedImage.TYPE_3BYTE_BGR);
        small.createGraphics().drawImage(opaque.getScaledInstance(50, 30, Image.SCALE_SMOOTH), 0, 0, null);
        show("small", small);
        AffineTransform turn = AffineTransform.getRotateInstance(0.3);
        show("turned", new AffineTransformOp(turn, AffineTransformOp.TYPE_BICUBIC).filter(opaque, null));
        float[] ninths = new float[9];
        Arrays.fill(ninths, 1 / 9f);
        show("blurred", new ConvolveOp(new Kernel(3, 3, ninths)).filter(opaque, null));

        JPanel panel = new JPanel();
        panel.add(new JLabel("label"));
        panel.setSize(panel.getPreferredSize());
        panel.doLayout();
        BufferedImage painted = new BufferedImage(panel.getWidth(), panel.getHeight(), BufferedImage.TYPE_INT_RGB);
        panel.paint(painted.createGraphics());
        show("panel", painted);
        System.out.println("headless " + GraphicsEnvironment.isHeadless());
        try {
            new JFrame("window");
        } catch (HeadlessException expected) {
            System.out.println(expected.getClass());
        }
        try {
            ImageIO.read(new ByteArrayInputStream(new byte[] {(byte) 0xff, (byte) 0xd8, (byte) 0xff, (byte) 0xe0, 0, 16}));
        } catch (Exception expected) {
            System.out.println(expected);
        }
    }
}
